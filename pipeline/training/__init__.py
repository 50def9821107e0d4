"""What one rank does. Nothing here imports pyspark."""
