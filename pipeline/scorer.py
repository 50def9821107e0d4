"""The name by which models of format 1 import their code; every later model brings code under a name of its own."""

from pipeline.model.scorer import Scorer

__all__ = ["Scorer"]
