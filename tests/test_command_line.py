"""Options that command-line tools have in common."""

from argparse import ArgumentTypeError

import pytest
import torch

from panet_plugin.command_line import device


def test_a_device_is_tried_before_it_is_used():
    assert device("cpu") == "cpu"
    with pytest.raises(ArgumentTypeError, match="foo: no such device here"):
        device("foo")
    if not torch.cuda.is_available():
        with pytest.raises(ArgumentTypeError, match="cuda: no such device here"):
            device("cuda")
