"""The former place of :mod:`panet_plugin.checkpoints`, for one release."""

import sys
import warnings

from panet_plugin import checkpoints

warnings.warn("panet_plugin.frameworks.checkpoints is panet_plugin.checkpoints now", FutureWarning, stacklevel=2)
sys.modules[__name__] = checkpoints
