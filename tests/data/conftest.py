"""Shared by the tests of data."""

import hashlib
import multiprocessing
import os
import sys
from multiprocessing import forkserver

import pytest


@pytest.fixture(scope="session")
def context():
    """Starts processes that have all imported already: they run, and can be killed, within milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "panet_plugin.data.div2k"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def tree():
    """Return a function: hashes of all files below a folder by path, locks aside."""

    def hashes(root):
        return {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file() and not path.name.endswith(".lock")
        }

    return hashes
