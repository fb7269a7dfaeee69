"""The tables of data sets, and what the documentation says of them."""

import re
from pathlib import Path

import pytest

from panet_plugin.data.datasets import BENCHMARKS, DIV2K
from panet_plugin.tasks import TASKS

ROWS = re.findall(r"^\| (\w+) \| (\d*)", (Path(__file__).parents[2] / "docs/datasets.md").read_text(), re.MULTILINE)


def test_documentation_lists_every_set_with_its_size():
    sizes = {name: int(count) for name, count in ROWS if count}
    assert sizes.items() >= {name: benchmark.count for name, benchmark in BENCHMARKS.items()}.items()
    assert sizes["DIV2K"] == DIV2K["train"].archives[1].count


def test_archives():
    archives = [archive for subset in DIV2K.values() for archive in subset.archives.values()]
    assert len(archives) == 8
    for field in ("name", "size", "sha256", "folder"):
        assert len({getattr(archive, field) for archive in archives}) == 8
    assert all(re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in archives)
    # Archives of the larger scales hold the smaller images.
    for subset in DIV2K.values():
        sizes = [subset.archives[scale].size for scale in (1, 2, 3, 4)]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_name_tasks_and_their_parameters(name):
    for task, shared in BENCHMARKS[name].tasks.items():
        assert any(shared.items() <= settings.items() for settings in TASKS[task].settings)
