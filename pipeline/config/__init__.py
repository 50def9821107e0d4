"""The user's YAML as typed, validated settings; ``--set a.b=c`` overrides anything in it.

Every mistake ends as a UserError that names the file, the key and the nearest valid name.
"""

from pipeline.config.load import ConfigFiles, load_config
from pipeline.config.sections import Split, Training
from pipeline.config.settings import Config

__all__ = ["Config", "ConfigFiles", "Split", "Training", "load_config"]
