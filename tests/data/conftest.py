"""Shared by the tests of data."""

import hashlib

import pytest
from preloaded import preloaded


@pytest.fixture(scope="session")
def context():
    """Starts processes that have imported the large libraries: they run, and can be killed, within milliseconds."""
    return preloaded()


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
