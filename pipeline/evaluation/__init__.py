"""How good a model is: numbers from summed counts, the gate's rule, and what people look at."""
