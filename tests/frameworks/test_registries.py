"""What importing a bridge registers, and that every config builds from it."""

import pkgutil
import subprocess
import sys

import pytest
import torch
from small_runs import BASICSR_CONFIGS, MMAGIC_CONFIGS

import panet_plugin
from panet_plugin.frameworks.bridges import framework_of

FRAMEWORKS = {"basicsr", "mmagic", "mmengine", "mmcv", "spandrel"}
CORE = sorted(
    room.name
    for room in pkgutil.iter_modules(panet_plugin.__path__)
    if room.ispkg and room.name not in ("frameworks", "ablation", "catalog", "commands")
)


def test_the_core_imports_no_framework():
    modules = ["panet_plugin", *(f"panet_plugin.{name}" for name in CORE)]
    code = f"import sys, {', '.join(modules)}; print(*sorted(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "torch" in imported
    assert not imported & FRAMEWORKS


@pytest.mark.parametrize("room", CORE)
def test_every_room_lists_its_public_names(room):
    module = __import__(f"panet_plugin.{room}", fromlist=["__all__"])
    assert module.__all__
    for name in module.__all__:
        assert hasattr(module, name)


TINY = {
    "PANet": {"mid_channels": 4, "num_blocks": 1},
    "PAEDSR": {"mid_channels": 8, "num_blocks": 1, "scale": 3},
    "RNAN": {"mid_channels": 4, "num_groups": 3, "scale": 2},
    "PyramidAttention": {"channels": 3, "levels": 2},
}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("framework", ["mmagic", "basicsr"])
def test_every_registered_network_builds_and_runs(framework, name):
    framework_of((MMAGIC_CONFIGS if framework == "mmagic" else BASICSR_CONFIGS)[0])
    if framework == "mmagic":
        from mmagic.registry import MODELS

        network = MODELS.build({"type": name, **TINY[name]})
    elif name == "PyramidAttention":
        return  # a block is no arch
    else:
        from basicsr.archs import build_network

        network = build_network({"type": name, **TINY[name]})
    scale = TINY[name].get("scale", 1)
    output = network(torch.rand(2, 3, 7, 6))
    assert output.shape == (2, 3, 7 * scale, 6 * scale)
    output.sum().backward()
    with pytest.raises(TypeError):
        type(network)(unknown=1)


def test_names_in_basicsr():
    framework_of(BASICSR_CONFIGS[0])
    from basicsr.utils.registry import ARCH_REGISTRY, METRIC_REGISTRY

    assert {"PANet", "PAEDSR", "RNAN"} <= set(ARCH_REGISTRY.keys())
    assert {"calculate_protocol_psnr", "calculate_protocol_ssim"} <= set(METRIC_REGISTRY.keys())
    assert ARCH_REGISTRY.get("EDSR").__module__.startswith("basicsr.")


def test_names_in_mmagic():
    framework_of(MMAGIC_CONFIGS[0])
    from mmagic.registry import DATASETS, METRICS, MODELS

    for registry, names in {
        MODELS: ("PANet", "PAEDSR", "RNAN", "PyramidAttention"),
        DATASETS: ("PairedLMDBDataset",),
        METRICS: ("ProtocolPSNR", "ProtocolSSIM"),
    }.items():
        for name in names:
            assert registry.get(name).__module__.startswith("panet_plugin."), name
    assert MODELS.get("EDSRNet").__module__.startswith("mmagic.")


@pytest.mark.parametrize("config", ["configs/panet_x2_div2k.py", "configs/basicsr/panet_x2_div2k.yml"])
def test_without_the_data_the_command_is_named(config, run_tool, tmp_path):
    output = run_tool("train.py", config, "--work-dir", tmp_path, code=1, DIV2K_ROOT=str(tmp_path / "none"))
    assert "Traceback" not in output
    assert str(tmp_path / "none") in output
    assert f"data_prep/div2k.py --out {tmp_path / 'none'}\n" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.py", "configs/none.py"), "configs/none.py"),
        (("train.py", "README.md"), ".yml"),
        (("test.py", "configs/panet_x2_div2k.py", "none.pth"), "none.pth"),
        (("test.py", "configs/panet_x2_div2k.py", "README.md"), "README.md"),
        (("convert_checkpoint.py", "--weights", "README.md", "--out", "out.pth"), "README.md"),
        (
            ("convert_checkpoint.py", "--weights", "tests/golden/panet_gray.npz", "--out", "README.md/out.pth"),
            "panet_gray.npz",
        ),
    ],
)
def test_wrong_files_are_named(arguments, message, run_tool):
    output = run_tool(*arguments, code=1)
    assert "Traceback" not in output
    assert f"{message}" in output
