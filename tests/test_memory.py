from pathlib import Path

import numpy as np
import pytest

from panet_plugin.memory import high_water_mark, reset_high_water_mark

MB = 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the mark can be reset on Linux alone")
def test_high_water_mark():
    reset_high_water_mark()
    before = high_water_mark()
    np.ones(60 * MB, np.uint8)
    assert 59 * MB < high_water_mark() - before < 70 * MB
    np.ones(30 * MB, np.uint8)  # no higher than before
    assert high_water_mark() - before < 70 * MB
    reset_high_water_mark()
    assert high_water_mark() - before < 10 * MB
