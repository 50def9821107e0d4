"""The machine: exit codes, log lines, the Spark session, locks, and paths as Spark, Petastorm and Python name them."""
