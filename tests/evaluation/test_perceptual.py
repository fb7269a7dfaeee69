import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torchvision
from evaluation_sets import PICTURES
from torch import nn

from panet_plugin.evaluation import load_lpips
from panet_plugin.pixels import luma


def alexnet(**kwargs):
    """Return AlexNet's features with random weights: the published ones would have to be downloaded."""
    sizes = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    layers = [layer for size in sizes for layer in (nn.Conv2d(*size), nn.ReLU())]
    for place in (2, 5, 12):
        layers.insert(place, nn.MaxPool2d(3, 2))
    return SimpleNamespace(features=nn.Sequential(*layers))


def test_lpips_of_gray_and_rgb_images(monkeypatch):
    monkeypatch.setattr(torchvision.models, "alexnet", alexnet)
    lpips = load_lpips()
    picture = np.tile(PICTURES["coffee"], (3, 3, 1))
    for image in (picture, luma(picture)):
        assert lpips(image, image) == 0
        assert lpips(image // 2, image) > lpips(image // 4 * 3, image) > 0


def test_without_torchmetrics(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    with pytest.raises(ImportError, match="LPIPS requires torchmetrics: pip install torchmetrics"):
        load_lpips()
