"""How a network learns what to answer for a category that it has never seen, where no training row has a rare one."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.data.manifest import Manifest

SHARE = 0.01
"""So many values of such a feature are "other" for one step; the feature's own value is back in the next epoch."""


class Hiding:
    """Hides some values of a batch. Where no feature needs it, no random number is drawn."""

    def __init__(self, config: Config, data: Manifest) -> None:
        places, others = [], []
        for place, feature in enumerate(config.features.categorical, start=len(config.features.numeric)):
            # a missing value is "other", too, where no training row lacks the value
            is_answered = feature.unknown == "other" and not feature.hash_buckets
            is_answered |= feature.missing == "value" and feature.column not in data.missing_in_training
            if is_answered and feature.column not in data.other_in_training:
                places.append(place)
                others.append(float(len(data.vocabularies[feature.column])))
        self._places, self._others = torch.tensor(places, dtype=torch.int64), torch.tensor(others)

    def hide(self, features: Tensor) -> Tensor:
        """Return the features (rows, features) with some values hidden; the argument stays as it is."""
        if not len(self._places):
            return features
        places, others = self._places.to(features.device), self._others.to(features.device)
        is_hidden = torch.rand(len(features), len(places), device=features.device) < SHARE
        features = features.clone()
        features[:, places] = torch.where(is_hidden, others, features[:, places])
        return features
