"""v_hack: directions of reward hacking per module, learned from pairs, and their removal from what an optimizer does.

Pure torch and safetensors. `extract` makes directions, `file` keeps them, `project` and `projector` take them out; the
trainer's part is in `trainer_ext.verl_plugin.vhack`. docs/vhack.md tells the whole.
"""

from trainer_ext.vhack.config import VhackConfig
from trainer_ext.vhack.extract import Extracted, TokenPair, extract
from trainer_ext.vhack.file import Loaded, ModelIdentity, WrongFile, load, model_name, save
from trainer_ext.vhack.projector import Projector, weight_directions

__all__ = [
    "Extracted",
    "Loaded",
    "ModelIdentity",
    "Projector",
    "TokenPair",
    "VhackConfig",
    "WrongFile",
    "extract",
    "load",
    "model_name",
    "save",
    "weight_directions",
]
