"""The driver's side of a training: executors awaited, ranks started, watched and started again."""
