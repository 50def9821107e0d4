"""All that a packaged model needs: the network, features.sql in process, raw rows in and predictions out."""
