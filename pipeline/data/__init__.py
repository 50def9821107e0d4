"""CSV to Parquet and manifest, and back to raw rows that are scored: everything that Spark does with rows."""
