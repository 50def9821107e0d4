"""MLflow: the store, its runs, the registered models and their aliases, the packaged model."""
