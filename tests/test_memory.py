from pathlib import Path

import numpy as np
import pytest

from panet_plugin.memory import available_memory, high_water_mark, reset_high_water_mark

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


@pytest.mark.parametrize(
    ("line", "files", "free"),
    [
        ("0::/job/step", {"job/memory.max": "900", "job/memory.current": "500", "job/step/memory.max": "max"}, 500),
        ("0::/", {"memory.max": "900", "memory.current": "300"}, 700),
        ("0::/../host", {"memory.max": "900", "memory.current": "300"}, 700),
        ("0::/", {"memory.max": "100", "memory.current": "500"}, 0),
        (
            "4:cpu,memory:/docker/abc",
            {"memory/memory.limit_in_bytes": "900", "memory/memory.usage_in_bytes": "800"},
            200,
        ),
        ("3:cpu:/", {"memory.max": "900", "memory.current": "300"}, None),
        ("0::/", {}, None),
    ],
)
def test_a_group_leaves_what_is_not_taken_and_what_is_only_cache(tmp_path, line, files, free):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"1:name=systemd:/x\n{line}\n")
    for name, content in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
        file.with_name("memory.stat").write_text("file 700\ninactive_file 100\ntotal_inactive_file 100\n")
    if free is None:
        assert available_memory(tmp_path) > 1e6
    else:
        assert available_memory(tmp_path) == free
