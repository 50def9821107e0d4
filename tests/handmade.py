"""A packaged model without a training: prepared data, a network with its first weights, MLflow's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from pyspark.sql import SparkSession

from pipeline.config import Config
from pipeline.data import shards
from pipeline.data.shards import Prepared
from pipeline.data.specs import Trained, net_spec
from pipeline.model.network import TabularNet, weight_bytes
from pipeline.tracking import package


def untrained_model(spark: SparkSession, config: Config, folder: Path) -> Prepared:
    """Write the MLflow model of an untrained network to ``folder``; return the data that it was made for."""
    prepared = shards.prepare_data(spark, config, 1)
    torch.manual_seed(0)
    net = TabularNet(net_spec(config, prepared.manifest))
    package.save_model(config, prepared.manifest, prepared.resolved, Trained(weight_bytes(net)), folder)
    return prepared
