"""``python -m pipeline.config`` prints the table of settings."""

from pipeline.config.reference import table

if __name__ == "__main__":
    print(table())
