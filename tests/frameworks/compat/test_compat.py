"""Each test runs in an interpreter of its own, since a framework can be imported only once."""

import contextlib
import functools
import importlib
import importlib.util
import inspect
import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from preloaded import run_script

ROOT = Path(__file__).resolve().parents[3]
ABSENT = (
    *("albumentations", "controlnet_aux", "diffusers", "huggingface_hub", "lpips", "pandas", "resize_right"),
    "transformers",
)


def run(function: Callable[..., None], *arguments: object) -> str:
    """Run a function of this file in a process that has imported no framework, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = run_script(__file__, [inspect.unwrap(function).__name__, *arguments], environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fresh(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Make a test run in a fresh interpreter."""

    @functools.wraps(function)
    def test(tmp_path: Path) -> None:
        run(function, tmp_path)

    return test


def hide(*packages: str) -> None:
    """Pretend that packages are not installed."""
    sys.modules.update(dict.fromkeys(packages))


def fake(name: str, **names: object) -> types.ModuleType:
    """Pretend that a module is installed and has these names; without names, it has every name."""
    module = types.ModuleType(name)
    module.__path__ = []
    module.__spec__ = importlib.util.spec_from_loader(name, None, is_package=True)
    vars(module).update(names)
    if not names:

        def attribute(attribute: str) -> type:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            return type(attribute, (), {"__module__": name})

        module.__getattr__ = attribute
    sys.modules[name] = module
    return module


class Hostile:
    """Creates a file when it is unpickled by a loader that obeys."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def traces() -> list[str]:
    """List what repairs have left behind."""
    import mmcv
    import numpy as np

    ours = "panet_plugin.frameworks.compat"
    found = [name for name, module in sys.modules.items() if type(module).__module__.startswith(ours)]
    found += [repr(finder) for finder in sys.meta_path if type(finder).__module__.startswith(ours)]
    found += [name for name in ("mmcv._ext", "torchvision.transforms.functional_tensor") if name in sys.modules]
    return found + ["mmcv's _ext"] * hasattr(mmcv, "_ext") + ["np.bool8"] * hasattr(np, "bool8")


def report_registries(*frameworks: str) -> None:
    """Enable frameworks in this order, and print the registered names."""
    from panet_plugin.frameworks import compat

    with contextlib.redirect_stdout(sys.stderr):
        for framework in (*frameworks, *frameworks):
            getattr(compat, f"enable_{framework}")()
        import basicsr.utils.registry
        import mmagic.registry
        from mmengine.registry import Registry

        for name in "apis", "datasets", "engine", "evaluation", "models", "visualization":
            assert importlib.import_module(f"mmagic.{name}") is sys.modules[f"mmagic.{name}"]
        registries = {name: list(r.module_dict) for name, r in vars(mmagic.registry).items() if isinstance(r, Registry)}
        registries["BASICSR_ARCHS"] = basicsr.utils.registry.ARCH_REGISTRY.keys()
    print(json.dumps({"traces": traces(), "registries": {key: sorted(names) for key, names in registries.items()}}))


def test_order_of_importing_does_not_matter() -> None:
    first = json.loads(run(report_registries, "basicsr", "mmagic"))
    assert first == json.loads(run(report_registries, "mmagic", "basicsr"))
    assert first["traces"] == []
    registries = first["registries"]
    own = [name for key, names in registries.items() if not key.startswith(("MMENGINE", "BASICSR")) for name in names]
    assert len(own) >= 250
    assert {"EDSRNet", "SwinIRNet", "PSNR", "PairedRandomCrop", "ConcatImageVisualizer"} <= set(own)
    assert {"EDSR", "RCAN"} <= set(registries["BASICSR_ARCHS"])


@fresh
def test_absent_packages_are_named_when_used(tmp_path: Path) -> None:
    hide(*ABSENT, "mmcv._ext", "pkg_resources")
    from panet_plugin.frameworks.compat import enable_mmagic

    enable_mmagic()
    assert "basicsr" not in sys.modules
    import mmcv.ops
    import torch
    from mmagic.apis.inferencers import controlnet_animation_inferencer
    from mmagic.datasets.transforms import albu_function
    from mmagic.evaluation.metrics import ppl
    from mmagic.models.editors import UNet3DConditionMotionModel
    from mmagic.models.editors.animatediff import unet_3d
    from mmagic.models.editors.disco_diffusion import guider
    from mmagic.models.editors.fastcomposer import fastcomposer_util
    from mmengine.utils.dl_utils.misc import mmcv_full_available

    uses = {
        "albumentations": lambda: albu_function.albu.Compose([]),
        "controlnet_aux": lambda: controlnet_animation_inferencer.HEDdetector.from_pretrained("x"),
        "diffusers": UNet3DConditionMotionModel,
        "huggingface_hub": lambda: unet_3d.snapshot_download("x"),
        "lpips": lambda: ppl.lpips.LPIPS(net="vgg"),
        "mmcv": lambda: mmcv.ops.DeformConv2dPack(3, 3, 3, padding=1)(torch.rand(1, 3, 8, 8)),
        "pandas": lambda: guider.pd.DataFrame(),
        "resize_right": lambda: guider.resize(torch.rand(1, 3, 8, 8), 2),
        "transformers": lambda: fastcomposer_util.CLIPModel.from_pretrained("x"),
    }
    for package, use in uses.items():
        with pytest.raises(ImportError, match=f"package '{package}' is not installed") as error:
            use()
        assert error.value.name == package
    # A class that MMagic derives from a placeholder answers questions like any class, and no object is one.
    assert not hasattr(UNet3DConditionMotionModel, "nothing")
    assert not isinstance(0, unet_3d.ModelMixin)
    assert not mmcv_full_available()
    for package in (*ABSENT, "mmcv._ext"):
        with pytest.raises(ImportError):
            importlib.import_module(package)

    # Without pkg_resources, MMEngine still finds packages.
    from mmengine.config import Config
    from mmengine.utils import get_installed_path, is_installed

    (tmp_path / "config.py").write_text("_base_ = 'mmagic::_base_/default_runtime.py'\n")
    assert Config.fromfile(tmp_path / "config.py").default_scope == "mmagic"
    assert is_installed("mmagic")
    assert Path(get_installed_path("opencv-python")).name == "cv2"
    assert not is_installed("no-such-package")


@fresh
def test_packages_that_are_too_new_are_hidden_only_during_the_import(tmp_path: Path) -> None:
    for name, text in {
        "diffusers": "class Transformer2DModel: ...",
        "diffusers/models": "",
        "transformers": "class Adafactor: ...",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    sys.path.insert(0, str(tmp_path))
    diffusers = importlib.import_module("diffusers")
    for framework in "mmagic.models", "basicsr":  # a failed attempt before the repairs does no harm
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module(framework)
    from panet_plugin.frameworks.compat import enable_basicsr, enable_mmagic

    enable_mmagic()
    enable_basicsr()
    assert sys.modules["diffusers"] is diffusers
    assert importlib.import_module("diffusers.models").__file__.startswith(str(tmp_path))
    assert diffusers.models.__file__.startswith(str(tmp_path))
    from mmengine.registry import OPTIMIZERS

    assert OPTIMIZERS.get("Adafactor") is importlib.import_module("transformers").Adafactor
    from mmagic.models.editors import UNet3DConditionMotionModel

    with pytest.raises(ImportError, match="package 'diffusers' is not installed, or its version"):
        UNet3DConditionMotionModel()


@fresh
def test_mmagic_repairs_do_nothing_on_a_stack_that_needs_none(tmp_path: Path) -> None:
    import numpy as np

    np.bool8 = type("bool8", (np.float64,), {})
    given = {name: fake(name) for name in (*ABSENT, "mmcv._ext", "pkg_resources")}
    parts = "configuration_utils models models.attention models.embeddings models.modeling_utils pipelines schedulers"
    parts += " models.unet_2d_condition pipelines.paint_by_example pipelines.stable_diffusion utils utils.import_utils"
    given |= {name: fake(name) for name in (f"diffusers.{part}" for part in parts.split())}
    given |= {name: fake(name) for name in ("transformers.models", "transformers.modeling_outputs")}
    given |= {name: fake(f"transformers.models.{name}") for name in ("clip", "clip.feature_extraction_clip")}
    given |= {name: fake(f"transformers.models.clip.{name}") for name in ("modeling_clip", "tokenization_clip")}
    given["diffusers"].models, given["diffusers"].schedulers = (
        given["diffusers.models"],
        given["diffusers.schedulers"],
    )
    given["diffusers"].pipelines = given["diffusers.pipelines"]
    given["diffusers.utils.import_utils"].is_xformers_available = bool
    given["diffusers.configuration_utils"].register_to_config = lambda init: init
    before = dict(sys.modules)

    import mmengine.utils

    lookup = mmengine.utils.is_installed, mmengine.utils.get_installed_path
    from panet_plugin.frameworks.compat import enable_mmagic

    enable_mmagic()
    assert all(sys.modules[name] is module for name, module in before.items())
    assert lookup == (mmengine.utils.is_installed, mmengine.utils.get_installed_path)
    import mmcv.ops.deform_conv
    from mmagic.models.editors.animatediff import unet_3d
    from mmagic.models.editors.disco_diffusion import guider
    from mmagic.utils import trans_utils

    assert np.bool8 in trans_utils.dtype_range
    assert mmcv.ops.deform_conv.ext_module is given["mmcv._ext"]
    assert guider.lpips is given["lpips"]
    assert type(unet_3d.ModelMixin) is type


@fresh
def test_basicsr_repairs_do_nothing_on_a_stack_that_needs_none(tmp_path: Path) -> None:
    import cv2
    import torch

    def rgb_to_grayscale(image: torch.Tensor) -> torch.Tensor:
        return image

    module = fake("torchvision.transforms.functional_tensor", rgb_to_grayscale=rgb_to_grayscale)
    encode = cv2.imencode
    cv2.imencode = lambda kind, image, parameters: encode(kind, image, [int(value) for value in parameters])
    torch.cuda.is_available = lambda: True
    from panet_plugin.frameworks.compat import enable_basicsr

    enable_basicsr()
    assert "mmengine" not in sys.modules
    assert sys.modules[module.__name__] is module
    import basicsr.train
    from basicsr.data import degradations
    from basicsr.models.base_model import BaseModel
    from basicsr.utils import dist_util

    assert degradations.rgb_to_grayscale is rgb_to_grayscale
    functions = (
        *(degradations.add_jpg_compression, basicsr.train.load_resume_state, BaseModel.model_to_device),
        *(dist_util._init_dist_pytorch, dist_util._init_dist_slurm),
    )
    for function in functions:
        assert function.__module__.startswith("basicsr.")
        assert not hasattr(function, "__wrapped__")


@fresh
def test_mmengine_resumes_safely(tmp_path: Path) -> None:
    from panet_plugin.frameworks.compat import enable_mmagic
    from panet_plugin.weights import CheckpointError

    enable_mmagic()
    import torch
    from mmagic.structures import DataSample
    from mmengine.logging import HistoryBuffer
    from mmengine.runner import Runner

    generator = {"type": "EDSRNet", "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 1}
    item = {"inputs": torch.zeros(3, 8, 8), "data_samples": {}}

    def runner(name: str, **settings: object) -> Runner:
        data = [{**item, "data_samples": DataSample(gt_img=torch.full((3, 16, 16), 255.0))}] * 4
        loader = {"batch_size": 2, "dataset": data, "sampler": {"type": "DefaultSampler", "shuffle": False}}
        saving = {"type": "CheckpointHook", "interval": 2, "by_epoch": False, "save_best": "PSNR", "rule": "greater"}
        return Runner(
            model={
                "type": "BaseEditModel",
                "generator": {**generator, "upscale_factor": 2},
                "pixel_loss": {"type": "L1Loss"},
                "data_preprocessor": {"type": "DataPreprocessor"},
            },
            work_dir=str(tmp_path),
            experiment_name=name,
            default_scope="mmagic",
            train_dataloader=loader,
            val_dataloader=loader,
            train_cfg={"by_epoch": False, "max_iters": 4, "val_interval": 2},
            val_cfg={"type": "MultiValLoop"},
            val_evaluator={"type": "Evaluator", "metrics": [{"type": "PSNR"}]},
            optim_wrapper={"optimizer": {"type": "Adam", "lr": 0.01}},
            param_scheduler={"type": "MultiStepLR", "milestones": [1, 3], "gamma": 0.1, "by_epoch": False},
            default_hooks={"checkpoint": saving},
            visualizer={"type": "Visualizer", "vis_backends": [{"type": "mmengine.TensorboardVisBackend"}]},
            log_level="ERROR",
            **settings,
        )

    uninterrupted = runner("first")
    uninterrupted.train()
    checkpoint = torch.load(tmp_path / "iter_2.pth", weights_only=True)
    history = checkpoint["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.statistics("mean") == history.data[0].mean()
    assert list(tmp_path.glob("best_PSNR_iter_*.pth"))

    resumed = runner("second", resume=True, load_from=str(tmp_path / "iter_2.pth"))
    resumed.train()
    assert resumed.iter == 4
    assert resumed.optim_wrapper.get_lr() == uninterrupted.optim_wrapper.get_lr()
    assert resumed.param_schedulers[0].state_dict() == uninterrupted.param_schedulers[0].state_dict()
    assert {int(state["step"]) for state in resumed.optim_wrapper.optimizer.state.values()} == {4}
    assert len(resumed.message_hub.get_scalar("train/loss").data[0]) == 4
    for expected, got in zip(uninterrupted.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(expected, got)

    class Lookup:
        def __reduce__(self):
            return getattr, (HistoryBuffer, "__init__")

    for name, harm in {"command": Hostile(tmp_path / "harmed"), "lookup": Lookup()}.items():
        torch.save({**checkpoint, "harm": harm}, tmp_path / "hostile.pth")
        with pytest.raises(CheckpointError, match=r"hostile\.pth: refused, since it is not a plain checkpoint"):
            runner(name, resume=True, load_from=str(tmp_path / "hostile.pth")).train()
    assert not (tmp_path / "harmed").exists()


@fresh
def test_basicsr_trains_and_resumes_safely_on_cpu(tmp_path: Path) -> None:
    from panet_plugin.frameworks.compat import enable_basicsr
    from panet_plugin.weights import CheckpointError

    enable_basicsr()
    assert "mmengine" not in sys.modules
    import basicsr.train
    import numpy as np
    import torch
    from basicsr.data.degradations import random_add_jpg_compression
    from basicsr.metrics import calculate_metric
    from basicsr.models import build_model
    from basicsr.utils import dist_util
    from torch.nn.parallel import DistributedDataParallel

    os.chdir(tmp_path)
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist_util.init_dist("pytorch")
    assert torch.distributed.get_backend() == "gloo"

    def options() -> dict:
        return {
            "name": "tiny",
            **{"model_type": "SRModel", "scale": 2, "num_gpu": 0, "is_train": True, "auto_resume": True},
            **{"dist": True, "rank": 0, "world_size": 1},
            "network_g": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2},
            "path": {"training_states": "experiments/tiny/training_states", "models": "models"},
            "train": {
                "ema_decay": 0.9,
                "optim_g": {"type": "Adam", "lr": 0.01},
                "scheduler": {"type": "MultiStepLR", "milestones": [1, 3], "gamma": 0.1},
                "pixel_opt": {"type": "L1Loss"},
            },
        }

    def train(model: object, first: int, last: int) -> None:
        for iteration in range(first, last + 1):
            model.update_learning_rate(iteration)
            model.feed_data({"lq": torch.zeros(1, 3, 8, 8), "gt": torch.ones(1, 3, 16, 16)})
            model.optimize_parameters(iteration)

    states = Path(options()["path"]["training_states"])
    for folder in (states, Path("models")):
        folder.mkdir(parents=True)
    assert basicsr.train.load_resume_state(options()) is None
    model = build_model(options())
    assert isinstance(model.net_g, DistributedDataParallel)
    for iteration in (2, 10):  # of these names, the alphabet would choose 2
        train(model, iteration, iteration)
        model.save(0, iteration)

    resume = options()
    state = basicsr.train.load_resume_state(resume)
    assert state["iter"] == 10
    resume["path"]["pretrain_network_g"] = "models/net_g_10.pth"
    again = build_model(resume)
    again.resume_training(state)
    assert again.optimizers[0].state_dict()["param_groups"] == model.optimizers[0].state_dict()["param_groups"]
    train(model, 11, 12)
    train(again, 11, 12)
    assert again.get_current_learning_rate() == model.get_current_learning_rate()
    for expected, got in zip(model.net_g.parameters(), again.net_g.parameters(), strict=True):
        assert torch.equal(expected, got)

    torch.save({**state, "harm": Hostile(tmp_path / "harmed")}, states / "20.state")
    with pytest.raises(CheckpointError, match=r"20\.state: refused, since it is not a plain checkpoint"):
        basicsr.train.load_resume_state(options())
    assert not (tmp_path / "harmed").exists()

    torch.distributed.destroy_process_group()
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$3" = "nodes[1-2]" ] && printf "127.0.0.1\\nnode2\\n"\n')
    (tmp_path / "scontrol").chmod(0o755)
    for name in "RANK", "WORLD_SIZE", "MASTER_ADDR":
        del os.environ[name]
    os.environ |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_NODELIST": "nodes[1-2]"}
    os.environ["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    dist_util.init_dist("slurm")
    assert torch.distributed.get_backend() == "gloo"
    assert dist_util.get_dist_info() == (0, 1)

    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    metrics = {"calculate_psnr": {"crop_border": 0}, "calculate_ssim": {"crop_border": 0}}
    values = {
        name: calculate_metric({"img": image, "img2": image ^ 1}, {"type": name, **settings})
        for name, settings in metrics.items()
    }
    assert values["calculate_psnr"] == pytest.approx(20 * np.log10(255))
    assert 0.999 < values["calculate_ssim"] < 1
    assert calculate_metric({"img": image}, {"type": "calculate_niqe", "crop_border": 0}) > 0
    compressed = random_add_jpg_compression(np.float32(image) / 255, (30, 31))
    assert compressed.shape == image.shape
    assert 0.01 < np.abs(compressed - image / 255.0).mean() < 0.5


@fresh
def test_mmengine_reads_plain_files_alone(tmp_path: Path) -> None:
    import mmengine

    from panet_plugin.frameworks.compat import enable_mmagic

    enable_mmagic()
    mark = tmp_path / "executed"
    (tmp_path / "x.yml").write_text(f"a: !!python/object/apply:os.mkdir [{mark}]")
    for suffix in ("pkl", "pickle"):
        mmengine.dump(Hostile(mark), tmp_path / f"x.{suffix}")
    for name, message in {"x.yml": "line 1: tag", "x.pkl": "pickles can run", "x.pickle": "pickles can run"}.items():
        with pytest.raises(ValueError, match=message) as error:
            mmengine.load(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))
    assert not mark.exists()
    mmengine.dump({"b": (1, 2), "a": 1e-4}, tmp_path / "good.yml")
    assert repr(mmengine.load(tmp_path / "good.yml")) == "{'a': 0.0001, 'b': (1, 2)}"
    mmengine.dump([{"a": 1}], tmp_path / "good.json")
    assert mmengine.load(tmp_path / "good.json") == [{"a": 1}]


if __name__ == "__main__":
    function = inspect.unwrap(globals()[sys.argv[1]])
    function(*(Path(argument) if "/" in argument else argument for argument in sys.argv[2:]))
