"""Every Python and YAML block of the pages is executed or built, in the order of its page, as a reader would."""

import ast
from pathlib import Path

import golden_networks as golden
import numpy as np
import pages
import pytest
import torch
import yaml
from mmengine.registry import MODELS

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.data import read_image, write_image
from panet_plugin.frameworks import mmagic  # noqa: F401 - its registrations
from panet_plugin.frameworks.basicsr.archs import build_arch
from panet_plugin.weights import load_official, write_checkpoint

LANGUAGES = {"python", "yaml", "sh", "{toctree}"}
#: Its blocks are files of the worked example, which test_contributing.py carries out.
WORKED_EXAMPLE = "CONTRIBUTING.md"
WITH_EXAMPLES = [
    page
    for page in pages.PAGES
    if page != WORKED_EXAMPLE and {"python", "yaml"} & {block.language for block in pages.blocks(page)}
]
BRIDGES = ("panet_plugin.frameworks.basicsr", "panet_plugin.frameworks.mmagic")


def picture(path):
    write_image(path, np.random.default_rng(0).integers(0, 256, (52, 100, 3), dtype=np.uint8))


def network(path):
    path.parent.mkdir(parents=True)
    write_checkpoint(PAEDSR(2, mid_channels=8, num_blocks=2), path)


#: The files that the examples read.
FILES = {
    "PANET.pt": lambda path: torch.save(golden.state_dict("panet_color"), path),
    "lena.png": picture,
    "photo.png": picture,
    "work_dirs/panet_lite_x2_sample/iter_800.pth": network,
}


@pytest.fixture
def variables(tmp_path, monkeypatch, set_matmul_precision):
    """Return a function that works through a page in a folder with these files and returns its variables."""
    monkeypatch.chdir(tmp_path)
    for name, make in FILES.items():
        make(tmp_path / name)

    def work_through(page):
        values = {}
        for block in pages.blocks(page):
            if block.language == "python":
                exec(compile("\n" * block.line + block.text, page, "exec"), values)
            elif block.language == "yaml":
                options = yaml.safe_load(block.text)
                assert [*options] == ["network_g"], f"{page}:{block.line}: what is to be built of this?"
                values.setdefault("networks", []).append(build_arch(options["network_g"]))
        return values

    return work_through


def check_readme(values):
    model = MODELS.build(values["model"] | {"_scope_": values["default_scope"]})
    assert type(model).__name__ == "BaseEditModel"
    assert type(model.generator) is PAEDSR
    assert values["custom_imports"]["imports"] == ["panet_plugin.frameworks.mmagic"]
    assert values["restored"].shape == (1, 3, 48, 48)
    assert type(values["network"]) is PANet
    assert not values["network"].training


def check_getting_started(values):
    assert read_image(Path("photo_x2.png")).shape == (104, 200, 3)


def check_restoring(values):
    assert read_image(Path("restored.png")).shape == (52, 100, 3)
    assert np.array_equal(read_image(Path("restored.png")), values["restored"])


def check_training(values):
    assert values["degraded"].shape == values["reference"].shape == (52, 100, 1)
    assert not np.array_equal(values["degraded"], values["reference"])
    assert 10 < values["task"].protocol.psnr(values["degraded"], values["reference"]) < 40


def check_checkpoints(values):
    from spandrel import MAIN_REGISTRY

    assert type(values["network"]) is PAEDSR
    assert {"PANet", "PAEDSR", "RNAN"} <= {entry.architecture.id for entry in MAIN_REGISTRY}


def check_insertion(values):
    images = torch.rand(1, 3, 24, 24)
    assert values["restored"].shape == (1, 3, 48, 48)
    for name in ("generator", "rcan"):
        assert MODELS.build(values[name] | {"_scope_": "mmagic"})(images).shape == (1, 3, 48, 48)
    assert [tuple(network(images).shape) for network in values["networks"]] == [(1, 3, 48, 48), (1, 3, 24, 24)]
    assert values["features"].shape == (1, 16, 12, 12)


def check_visualization(values):
    assert np.isclose(sum(level.sum() for level in values["view"].weights), 1)
    assert len(values["view"].matches) == 6
    assert read_image(Path("attention.png")).shape[2] == 3


def check_bundled(values):
    assert type(values["network"]) is PANet
    assert values["path"].suffix == ".safetensors"


def check_export(values):
    images = torch.rand(1, 3, 12, 9)
    program = torch.jit.load("panet.pt")
    with torch.no_grad():
        expected = load_official("PANET.pt")(images)
        torch.testing.assert_close(program(images), expected)
        torch.testing.assert_close(load_official("panet.safetensors")(images), expected)
    assert isinstance(values["network"], torch._dynamo.eval_frame.OptimizedModule)


def check_ablation(values):
    assert [*values["settings"]] == ["none", "pyramid", "hard"]


def check_attention(values):
    assert torch.get_float32_matmul_precision() == "medium"


#: What must have come of the examples. A page with new ones needs an entry here.
CHECKS = {
    "README.md": check_readme,
    "docs/getting_started.md": check_getting_started,
    "docs/restoring.md": check_restoring,
    "docs/training.md": check_training,
    "docs/checkpoints.md": check_checkpoints,
    "docs/insertion.md": check_insertion,
    "docs/attention.md": check_attention,
    "docs/visualization.md": check_visualization,
    "docs/bundled.md": check_bundled,
    "docs/export.md": check_export,
    "docs/ablation.md": check_ablation,
}


@pytest.mark.filterwarnings("ignore:.*those of the network are kept", "ignore:.*published ones are assumed")
@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_examples_run(page, variables):
    CHECKS[page](variables(page))


def test_no_check_is_left_behind():
    assert set(CHECKS) == set(WITH_EXAMPLES)


@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_a_bridge_comes_before_its_framework(page):
    """It repairs it: here other tests have imported it, a reader has not."""
    repaired = False
    for block in pages.blocks(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                repaired |= name.startswith(BRIDGES)
                framework = name.split(".")[0] in ("basicsr", "mmagic", "mmcv", "mmengine")
                assert repaired or not framework, f"{page}:{block.line}: {name} before a bridge"


@pytest.mark.parametrize("page", pages.PAGES)
def test_every_block_has_a_language_that_is_tested(page):
    for block in pages.blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}: a block of {block.language or 'no language'}"
