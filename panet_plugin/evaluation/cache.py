"""A cache of scores, keyed by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy
import scipy
import torch

import panet_plugin
from panet_plugin.files import write_bytes


class ScoreCache:
    """Stores each score in a small file.

    Args:
        folder: Created when the first score is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, **dependencies: Any) -> Path:
        """Return the file for a score's dependencies, to which this version of the package is added."""
        key = json.dumps([algorithm(), dependencies], sort_keys=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    @staticmethod
    def read(path: Path, fields: tuple[str, ...]) -> dict[str, float] | None:
        """Return the numbers in a file; None if it does not exist, or has other fields."""
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or set(found) != set(fields):
            return None
        return found if all(type(value) is float for value in found.values()) else None

    @staticmethod
    def write(path: Path, scores: dict[str, float]) -> None:
        """Store numbers atomically."""
        write_bytes(path, json.dumps(scores).encode())


@cache
def algorithm() -> str:
    """Return a hash of the code that computes results: this package and the libraries that it calls."""
    digest = hashlib.sha256()
    root = Path(panet_plugin.__file__).parent
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".cpp", ".h")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    # Not by distribution: there are several of OpenCV.
    for library in (torch, numpy, scipy, cv2):
        digest.update(f"{library.__name__} {library.__version__}".encode())
    return digest.hexdigest()
