"""Sets of settings that are trained alike: one file, from which every run's config follows."""

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

#: What every training of a set has, whatever its base says: it is scored afterwards, and can be interrupted anywhere.
#: One checkpoint is deleted before the next is whole, hence two.
_ALWAYS = {
    **{f"{phase}_{part}": None for phase in ("val", "test") for part in ("cfg", "dataloader", "evaluator")},
    "default_hooks.checkpoint.save_best": None,
    "default_hooks.checkpoint.max_keep_ckpts": 2,
}


@dataclass(frozen=True)
class Setting:
    """One setting and one seed: one training.

    Attributes:
        name: Of the setting.
        seed: Of the weights, the order of the data and the degradation.
        base: The config that is trained.
        overrides: What the setting changes in it, by dotted name, and what all trainings of a set have.
    """

    name: str
    seed: int
    base: Path
    overrides: Mapping[str, Any]

    def config(self) -> Config:
        """Return the config with everything said."""
        cfg = copy.deepcopy(_read(self.base))
        cfg.merge_from_dict(dict(self.overrides))
        return cfg

    def fingerprint(self) -> dict[str, Any]:
        """Return the config as plain values: what makes one training another."""
        return json.loads(json.dumps(self.config().to_dict(), default=str, sort_keys=True))


@dataclass(frozen=True)
class Ablation:
    """A set of settings, as a file of MMEngine's kind describes it.

    Attributes:
        name: The file's, without its suffix.
        base: Config that every setting starts from; in the file, relative to it.
        seeds: Every setting is trained once with each.
        settings: What each setting changes in ``base``, by dotted name. The first is what the others are compared with.
        crop: Side in pixels of the middle that is scored of every benchmark picture; None is all of it.
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
            path: The file; being a config of MMEngine it is executed.
            seeds: Instead of the file's.

        Raises:
            FileNotFoundError: If there is no such file, or no such base.
            AblationError: If it does not describe a set of settings.
        """
        if not path.is_file() or path.suffix != ".py":
            raise FileNotFoundError(f"{path}: expected an existing .py file with a set of settings")
        content = Config.fromfile(path).to_dict()
        try:
            base, settings = (path.parent / content["base"]).resolve(), content["settings"]
            seeds = content["seeds"] if seeds is None else seeds
        except KeyError as error:
            raise AblationError(f"{path}: expected base, seeds and settings, but there is no {error.args[0]}") from None
        if not base.is_file() or base.suffix != ".py":
            raise FileNotFoundError(f"{path}: its base {base} is no existing .py config")
        if not isinstance(settings, Mapping) or not settings:
            raise AblationError(f"{path}: settings must be overrides of the base by name, got {settings!r}")
        for name, overrides in settings.items():
            if not re.fullmatch(r"\w[\w.+-]*", str(name)) or not isinstance(overrides, Mapping):
                raise AblationError(
                    f"{path}: a setting is a name of letters, digits and _ . + -, and a dict of overrides by dotted "
                    f"name, got {name!r}: {overrides!r}"
                )
        if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
            raise AblationError(f"{path}: seeds must be different integers from 0 on, got {seeds!r}")
        crop = content.get("crop")
        if crop is not None and (type(crop) is not int or crop < 1):
            raise AblationError(f"{path}: crop must be a side in pixels or None, got {crop!r}")
        found = cls(path.stem, base, tuple(seeds), settings, crop)
        found._check(path)
        return found

    @property
    def reference(self) -> str:
        """The setting that the others are compared with."""
        return next(iter(self.settings))

    def setting(self, name: str, seed: int = 0) -> Setting:
        """Return one training."""
        return Setting(name, seed, self.base, {**self.settings[name], **_ALWAYS, "randomness.seed": seed})

    def trainings(self) -> list[Setting]:
        """Return all trainings: every setting with the first seed, then with the next."""
        return [self.setting(name, seed) for seed in self.seeds for name in self.settings]

    def task(self) -> Task:
        """Return what all settings are trained for."""
        return _task(self.setting(self.reference).config())

    def _check(self, path: Path) -> None:
        """Compare the settings as far as they must be alike."""
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
                    f"{path}: {name} has no train_dataloader.num_workers; with at least 1 the data are drawn apart "
                    "from the weights, and the same for all settings"
                )
            if task != self.task():
                raise AblationError(f"{path}: {name} is for another task than {self.reference}")
            text = json.dumps(training.fingerprint(), sort_keys=True)
            if text in seen:
                raise AblationError(f"{path}: {name} is the same as {seen[text]}")
            seen[text] = name


@functools.cache
def _read(base: Path) -> Config:
    """Read a config once: MMEngine tells of every variable of the environment every time."""
    return Config.fromfile(base)


def budget(cfg: Config) -> str:
    """Say how long a config trains on what."""
    loader = cfg.train_dataloader
    side = loader.dataset.get("patch_size")
    patches = f"{side}x{side}" if side else "whole images"
    return f"{cfg.train_cfg.max_iters} iterations of {loader.batch_size} patches of {patches}"


def _task(cfg: Config) -> Task:
    dataset = cfg.train_dataloader.dataset
    return make_task(**dataset["task"]) if "task" in dataset else make_task("super_resolution", scale=dataset.scale)
