"""The driver's side of training: wait for executors, start the ranks, watch them, start them again."""
