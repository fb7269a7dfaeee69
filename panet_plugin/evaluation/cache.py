"""Scores that were computed before, by the content of all that they depend on."""

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
    """One small file for every score.

    Args:
        folder: Is made when the first score is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, **dependencies: Any) -> Path:
        """Return the file for what a score depends on; this version of the package is one of them."""
        key = json.dumps([algorithm(), dependencies], sort_keys=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    @staticmethod
    def read(path: Path, fields: tuple[str, ...]) -> dict[str, float] | None:
        """Return the numbers of a file; None if it does not exist, or does not hold just these fields."""
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(found, dict) or set(found) != set(fields):
            return None
        return found if all(type(value) is float for value in found.values()) else None

    @staticmethod
    def write(path: Path, scores: dict[str, float]) -> None:
        """Store numbers; the file is either whole or not there."""
        write_bytes(path, json.dumps(scores).encode())


@cache
def algorithm() -> str:
    """Return a hash of what computes results: the code of this package, and the libraries that it calls."""
    digest = hashlib.sha256()
    root = Path(panet_plugin.__file__).parent
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".cpp", ".h")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    # Not by their distributions: OpenCV comes in several.
    for library in (torch, numpy, scipy, cv2):
        digest.update(f"{library.__name__} {library.__version__}".encode())
    return digest.hexdigest()
