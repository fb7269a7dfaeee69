"""The former place of :mod:`panet_plugin.checkpoints`, for one release."""

import sys
import warnings

from panet_plugin import checkpoints

warnings.warn("panet_plugin.frameworks.checkpoints has moved to panet_plugin.checkpoints", FutureWarning, stacklevel=2)
sys.modules[__name__] = checkpoints
