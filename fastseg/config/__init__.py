"""The configuration of a training run: defaults are dataclasses, a YAML file says what differs.

`load_config` adds the file's name to every complaint. Arguments of models, data sets and losses, and the names of
auxiliary outputs, are checked against their builders by `engine.build`.
"""

from fastseg.config.load import config_differences, dump_config, load_config
from fastseg.config.schema import (
    AugmentConfig,
    Config,
    DataConfig,
    DataPart,
    InputConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "DataPart",
    "InputConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "ScheduleConfig",
    "TrainConfig",
    "config_differences",
    "dump_config",
    "load_config",
]
