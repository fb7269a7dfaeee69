"""Patches for both frameworks: checkpoints are loaded as data on every version of PyTorch, and never run code."""

import functools
import importlib
import os
import pickle
from types import ModuleType
from typing import IO, Any

import torch

from panet_plugin.weights import CheckpointError, load_safely
from panet_plugin.weights.files import refusal


class _SafeTorch(ModuleType):
    """PyTorch with a ``load`` that accepts only data."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def load(file: str | os.PathLike | IO[bytes], **options: Any) -> Any:
        if isinstance(file, (str, os.PathLike)):
            return load_safely(file, **options)
        return torch.load(file, **{**options, "weights_only": True})


def safe_loads(*modules: str) -> None:
    """Make ``torch.load`` in modules load only data; errors name other files.

    Symptom: a checkpoint with a program in it runs the program, or ends in a traceback with advice on how to run it.
    Cause: ``weights_only`` is left to its default, which is False before PyTorch 2.6.
    """
    for name in modules:
        vars(importlib.import_module(name))["torch"] = _SafeTorch("torch")


def safe_downloads(module: str) -> None:
    """Do the same for ``torch.hub.load_url`` in a module, whose default is False in every version."""
    namespace = vars(importlib.import_module(module))
    upstream = namespace["load_url"]

    @functools.wraps(upstream)
    def load_url(url: str, *args: Any, **options: Any) -> Any:
        try:
            return upstream(url, *args, **{**options, "weights_only": True})
        except pickle.UnpicklingError as error:
            raise CheckpointError(refusal(url, error)) from error

    namespace["load_url"] = load_url
