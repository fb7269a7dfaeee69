"""Ablation studies: sets of settings, trained and scored under equal conditions."""

from panet_plugin.ablation.settings import Ablation, Setting
from panet_plugin.ablation.study import run
from panet_plugin.errors import AblationError

__all__ = ["Ablation", "AblationError", "Setting", "run"]
