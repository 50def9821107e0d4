"""The user's YAML as typed, validated settings; ``--set a.b=c`` overrides anything in it.

Every mistake ends as a UserError that names the file, the key and the nearest valid name.
"""

from pipeline.config.load import load_config
from pipeline.config.settings import Config, Split, Training

__all__ = ["Config", "Split", "Training", "load_config"]
