"""Studies: files with settings that are trained under equal conditions, from which the runs' configs are derived."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from panet_plugin.errors import AblationError
from panet_plugin.tasks import Task, make_task

#: Overrides for every run: it is scored after training, and can be interrupted at any time. Two checkpoints are kept,
#: since one is deleted before the next is complete.
_ALWAYS = {
    **{f"{phase}_{part}": None for phase in ("val", "test") for part in ("cfg", "dataloader", "evaluator")},
    "default_hooks.checkpoint.save_best": None,
    "default_hooks.checkpoint.max_keep_ckpts": 2,
}


@dataclass(frozen=True)
class Setting:
    """One setting and one seed: one training.

    Attributes:
        name: Name of the setting.
        seed: Seed of weights, data order and degradation.
        base: The base config.
        overrides: Overrides of the setting and of all runs, by dotted name.
    """

    name: str
    seed: int
    base: Path
    overrides: Mapping[str, Any]

    def config(self) -> Config:
        """Return the complete config."""
        cfg = copy.deepcopy(_read(self.base))
        cfg.merge_from_dict(dict(self.overrides))
        return cfg

    def fingerprint(self) -> dict[str, Any]:
        """Return the config as plain values, for comparing runs."""
        return json.loads(json.dumps(self.config().to_dict(), default=str, sort_keys=True))


@dataclass(frozen=True)
class Ablation:
    """A study, read from an MMEngine config file.

    Attributes:
        name: The file's name without suffix.
        base: Base config of all settings; in the file, its path is relative to the file.
        seeds: Every setting is trained once with each seed.
        settings: Overrides of ``base`` for each setting, by dotted name. The first is the reference.
        crop: Side in pixels of the center crop of benchmark images that is scored; None for whole images.
    """

    name: str
    base: Path
    seeds: tuple[int, ...]
    settings: Mapping[str, Mapping[str, Any]]
    crop: int | None = None

    @classmethod
    def fromfile(cls, path: Path, seeds: Sequence[int] | None = None) -> Ablation:
        """Read a file.

        Args:
            path: The file; as a config of MMEngine, it is executed.
            seeds: Replacement for the file's seeds.

        Raises:
            FileNotFoundError: If the file or its base does not exist.
            AblationError: If it does not describe a study.
        """
        if not path.is_file() or path.suffix != ".py":
            raise FileNotFoundError(f"{path}: expected an existing .py file that describes a study")
        content = Config.fromfile(path).to_dict()
        try:
            base, settings = (path.parent / content["base"]).resolve(), content["settings"]
            seeds = content["seeds"] if seeds is None else seeds
        except KeyError as error:
            raise AblationError(f"{path}: expected base, seeds and settings, {error.args[0]} is missing") from None
        if not base.is_file() or base.suffix != ".py":
            raise FileNotFoundError(f"{path}: its base {base} is not an existing .py config")
        if not isinstance(settings, Mapping) or not settings:
            raise AblationError(f"{path}: settings must be overrides of the base by name, got {settings!r}")
        for name, overrides in settings.items():
            if not re.fullmatch(r"\w[\w.+-]*", str(name)) or not isinstance(overrides, Mapping):
                raise AblationError(
                    f"{path}: expected names of letters, digits and _ . + -, each with a dict of overrides by dotted "
                    f"name, got {name!r}: {overrides!r}"
                )
        if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise AblationError(f"{path}: seeds must be distinct integers of at least 0, got {seeds!r}")
        crop = content.get("crop")
        if crop is not None and (type(crop) is not int or crop < 1):
            raise AblationError(f"{path}: crop must be a side in pixels or None, got {crop!r}")
        found = cls(path.stem, base, tuple(seeds), settings, crop)
        found._check(path)
        return found

    @property
    def reference(self) -> str:
        """The setting with which the others are compared."""
        return next(iter(self.settings))

    def setting(self, name: str, seed: int = 0) -> Setting:
        """Return a run."""
        return Setting(name, seed, self.base, {**self.settings[name], **_ALWAYS, "randomness.seed": seed})

    def trainings(self) -> list[Setting]:
        """Return all runs: every setting with the first seed, then with the next."""
        return [self.setting(name, seed) for seed in self.seeds for name in self.settings]

    def task(self) -> Task:
        """Return the task of all settings."""
        return _task(self.setting(self.reference).config())

    def _check(self, path: Path) -> None:
        """Check that the settings can be compared."""
        seen: dict[str, str] = {}
        for name in self.settings:
            training = self.setting(name)
            try:
                cfg = training.config()
                task, workers = _task(cfg), cfg.train_dataloader.get("num_workers")
            except (KeyError, TypeError, AttributeError) as error:
                raise AblationError(f"{path}: {name} does not fit {self.base}: {error}") from error
            if not workers:
                raise AblationError(
                    f"{path}: {name} needs train_dataloader.num_workers above 0: then the data do not depend on the "
                    "initial weights, and are the same for all settings"
                )
            if task != self.task():
                raise AblationError(f"{path}: {name} is for another task than {self.reference}")
            text = json.dumps(training.fingerprint(), sort_keys=True)
            if text in seen:
                raise AblationError(f"{path}: {name} is the same as {seen[text]}")
            seen[text] = name


@functools.cache
def _read(base: Path) -> Config:
    """Read a config, cached: MMEngine logs every environment variable each time."""
    return Config.fromfile(base)


def budget(cfg: Config) -> str:
    """Describe the length and data of a config's training."""
    loader = cfg.train_dataloader
    side = loader.dataset.get("patch_size")
    patches = f"{side}x{side}" if side else "whole images"
    return f"{cfg.train_cfg.max_iters} iterations of {loader.batch_size} patches of {patches}"


def _task(cfg: Config) -> Task:
    dataset = cfg.train_dataloader.dataset
    return make_task(**dataset["task"]) if "task" in dataset else make_task("super_resolution", scale=dataset.scale)
