"""Ablations: sets of settings, trained and scored alike."""

from panet_plugin.errors import AblationError
from panet_plugin.frameworks.ablation.settings import Ablation, Setting
from panet_plugin.frameworks.ablation.study import run

__all__ = ["Ablation", "AblationError", "Setting", "run"]
