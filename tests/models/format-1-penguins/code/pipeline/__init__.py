"""CSV in a lake to a tracked PyTorch model: Spark prepares, Horovod on Spark trains, MLflow keeps."""
