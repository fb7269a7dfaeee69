"""The table of bridges: whose config a file is, and what works where no framework is installed."""

import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import pytest
from skimage import data

from panet_plugin.archs import PANet
from panet_plugin.data import write_image
from panet_plugin.frameworks import bridges
from panet_plugin.frameworks.bridges import BRIDGES, Bridge, bridge_of_config, unregistered
from panet_plugin.weights import bundled, write_checkpoint

ROOT = Path(__file__).parents[2]
#: Runs commands in an interpreter in which nothing of the frameworks can be imported.
WITHOUT = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("basicsr", "mmagic", "mmengine", "mmcv", "spandrel"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for command in sys.argv[1:]:
    sys.argv[:] = command.split("|")
    print("==", *sys.argv)
    try:
        runpy.run_path(f"ROOT/tools/{sys.argv[0]}.py", run_name="__main__")
    except SystemExit as ended:
        print("exit", ended.code)
""".replace("ROOT", str(ROOT))


@pytest.mark.parametrize(
    ("name", "text", "framework"),
    [
        ("x.py", "model = dict(generator=dict(type='PANet'))", "mmagic"),
        ("x.yml", "model: {generator: {type: PANet}}", "mmagic"),
        ("x.yml", "network_g: {type: PANet}", "basicsr"),
        ("x.yaml", "_base_: base.yml\nname: x", "basicsr"),
        ("x.py", "network_g = dict(type='PANet')", "basicsr"),
        # Where the content does not tell.
        ("x.py", "import os", "mmagic"),
        ("x.yml", "a: !!python/name:os.mknod", "basicsr"),
        ("x.yml", "a: 1", "basicsr"),
    ],
)
def test_a_config_is_known_by_its_content(tmp_path, name, text, framework):
    (tmp_path / "base.yml").write_text("network_g: {type: PANet}")
    (tmp_path / name).write_text(text)
    assert bridge_of_config(tmp_path / name).name == framework
    for other in BRIDGES:
        assert bridge_of_config(tmp_path / name, other).name == other


def test_a_row_adds_a_framework(monkeypatch, tmp_path):
    """Its configs may look like another's, and have what no other's have."""
    monkeypatch.setattr(bridges, "BRIDGES", {"third": Bridge("third", "Third", ("network_g", "losses")), **BRIDGES})
    for text, name in (("network_g: 1\nlosses: 1", "third"), ("network_g: 1", "basicsr"), ("losses: 1", "basicsr")):
        (tmp_path / "x.yml").write_text(text)
        assert bridge_of_config(tmp_path / "x.yml").name == name
    with pytest.raises(ImportError, match="Third is not installed, or only partly"):
        bridge_of_config(tmp_path / "x.yml", "third").load("run")


def test_names_are_looked_up_in_every_framework(monkeypatch):
    network = {"type": "PANet", "inner": [{"type": "EDSRNet"}, {"type": "no_such_thing"}]}
    assert unregistered(network, "basicsr") == "no_such_thing"
    # One that is not installed registers nothing.
    monkeypatch.setitem(sys.modules, "panet_plugin.frameworks.mmagic.archs", None)
    assert unregistered(network, "basicsr") == "EDSRNet, no_such_thing"
    with pytest.raises(ImportError, match="MMagic is not installed, or only partly"):
        unregistered(network, "mmagic")


def test_all_but_training_works_without_a_framework(tmp_path):
    weights, small = bundled("super_resolution"), tmp_path / "HR/small.png"
    write_image(small, data.coffee()[:24, :24])
    write_checkpoint(PANet(mid_channels=4, num_blocks=1), tmp_path / "panet.safetensors")
    (tmp_path / "x.yml").write_text("network_g: {type: PANet}")
    helps = ("restore", "export", "show_attention", "compare", "convert_checkpoint", "train", "test", "ablate")
    commands = [
        *(f"{name}|--help" for name in helps),
        f"restore|{small}|--weights|{weights}|--out|{tmp_path / 'out'}|--no-progress",
        f"convert_checkpoint|--weights|{weights}|--out|{tmp_path / 'x.pth'}",
        f"export|{weights}|{tmp_path / 'x.safetensors'}",
        f"compare|--task|sr|--data|{tmp_path}|--methods|bicubic|ours={weights}|--out|{tmp_path / 'compared'}",
        f"show_attention|{small}|--weights|{tmp_path / 'panet.safetensors'}|--at|1|1|--out|{tmp_path / 'shown'}",
        f"train|{tmp_path / 'x.yml'}",
        f"restore|{small}|--weights|{weights}|--config|{tmp_path / 'x.yml'}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *commands],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    runs = done.stdout.split("\n== ")
    assert len(runs) == len(commands)
    for run, name in zip(runs, helps, strict=False):
        assert f"usage: {name}.py " in run and "exit 0" in run, run
    for name in ("out/small.png", "x.pth", "x.safetensors", "compared/comparison.md", "shown/small_1_1.png"):
        assert (tmp_path / name).is_file(), done.stdout + done.stderr
    # What needs a framework says so.
    for run in runs[-2:]:
        assert "exit error: " in run and "No module named 'mmengine'" in run, run


def test_a_spawned_process_repairs_basicsr_before_it_unpickles_its_datasets():
    BRIDGES["basicsr"].load("loading")
    from basicsr.data.single_image_dataset import SingleImageDataset

    from panet_plugin.frameworks.basicsr.loading import _Seeded

    content = pickle.dumps(_Seeded(SingleImageDataset.__new__(SingleImageDataset)), protocol=0)
    modules = [str(word).split()[0] for code, word, _ in pickletools.genops(content) if code.name == "GLOBAL"]
    ours = modules.index("panet_plugin.frameworks.basicsr.loading")
    assert ours < modules.index("basicsr.data.single_image_dataset")
