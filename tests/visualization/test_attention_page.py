"""What the page holds; tests/browser shows it in a browser."""

import base64
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from panet_plugin.archs import PANet
from panet_plugin.data.images import decode_image
from panet_plugin.visualization import AttentionProbe, VisualizationError, attention_page, grid
from panet_plugin.visualization.attention_pages import MAX_MATCHES, MAX_PIXELS, MAX_POINTS


def make_probe(height=12, width=16, **attention):
    torch.manual_seed(0)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return AttentionProbe(PANet(3, 8, 2, attention={"levels": 2, **attention}), picture)


def content(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_it_holds_what_is_computed():
    probe, points = make_probe(softmax_scale=50.0), grid(16, 12, 5)
    assert points == [
        (0, 0),
        (5, 0),
        (10, 0),
        (15, 0),
        (0, 5),
        (5, 5),
        (10, 5),
        (15, 5),
        (0, 10),
        (5, 10),
        (10, 10),
        (15, 10),
    ]
    found = content(attention_page(probe, points, "photo.png", matches=3))
    assert [tuple(point["at"]) for point in found["points"]] == points
    for point, view in zip(found["points"], probe.views(points, 3), strict=True):
        assert [match[:3] for match in point["matches"]] == [[m.level, m.row, m.column] for m in view.matches]
        assert [m[3] for m in point["matches"]] == pytest.approx([m.weight for m in view.matches], rel=0.005)
        assert point["shares"] == pytest.approx([float(level.sum()) for level in view.weights], rel=0.005)
    head, _, picture = found["image"].partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(decode_image(base64.b64decode(picture), "picture"), probe.image)


def test_pixels_are_computed_in_blocks(monkeypatch):
    probe = make_probe()
    whole = attention_page(probe, grid(16, 12, 4), "photo.png")
    monkeypatch.setattr("panet_plugin.visualization.attention_pages._BLOCK", 2 * sum(probe.positions))
    calls = []
    views = probe.views
    monkeypatch.setattr(probe, "views", lambda points, matches: calls.append(len(points)) or views(points, matches))
    blocks = content(attention_page(probe, grid(16, 12, 4)[:11], "photo.png"))
    assert calls == [2] * 5 + [1]
    assert [p["at"] for p in blocks["points"]] == [p["at"] for p in content(whole)["points"]][:11]


class Elements(HTMLParser):
    """Notes the elements of a page with their attributes, and the text of the one that holds the data."""

    def __init__(self, page):
        super().__init__()
        self.found, self.data, self._inside = [], "", False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, attributes))
        self._inside = ("id", "data") in attributes

    def handle_data(self, text):
        self.data += text if self._inside else ""


@pytest.mark.parametrize(
    "name",
    [
        "</script><img src=x onerror=alert(1)>&amp;\u2028.png",
        "<script>alert(1)</script>",
        "<!--<script>",
        '"><img onerror=alert(1)>.png',
        "' onload='alert(1)",
        "{{data}} \\u003c ${1}",
        os.fsdecode(b"\xff.png"),  # a name that is no UTF-8
    ],
)
def test_names_are_text(name):
    probe = make_probe()
    harmless = Elements(attention_page(probe, [(0, 0)], "photo.png"))
    probe.block = name
    page = attention_page(probe, [(0, 0)], name)
    found = Elements(page.encode().decode())
    assert found.found == harmless.found
    assert json.loads(found.data)["title"] == f"{name}: attention of {name}"


def test_it_needs_no_other_file():
    page = attention_page(make_probe(), [(0, 0)], "photo.png")
    assert set(re.findall(r"https?://[^\"]*", page)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert re.findall(r"<link|@import|url\(|<script src|fetch\(", page) == []
    assert "default-src 'none'" in page


def test_its_size_is_bounded():
    """With random colors, which no PNG makes smaller, and the longest numbers."""
    probe = make_probe(40, 40, softmax_scale=1.0)
    points = grid(40, 40, 2)
    size = len(attention_page(probe, points, "photo.png", matches=MAX_MATCHES))
    bound = 20_000 + len(points) * (60 + MAX_MATCHES * 28) + 40**2 * 4.1
    assert bound / 2 < size < bound
    assert 20_000 + MAX_POINTS * (60 + MAX_MATCHES * 28) + MAX_PIXELS * 4.1 < 8e6


@pytest.mark.parametrize(
    ("points", "matches", "message"),
    [
        ([], 3, "a page can have 1 to 5,000 selectable pixels, got 0"),
        ([(0, 0)] * 5001, 3, "a page can have 1 to 5,000 selectable pixels, got 5,001"),
        ([(0, 0)], 0, "a page can have 1 to 20 matches, got 0"),
        ([(0, 0)], 21, "a page can have 1 to 20 matches, got 21"),
        ([(0, 12)], 3, r"pixel \(0, 12\) is outside the image"),
    ],
)
def test_what_is_too_much(points, matches, message):
    with pytest.raises(VisualizationError, match=message):
        attention_page(make_probe(), points, "photo.png", matches)


def test_large_images(monkeypatch):
    monkeypatch.setattr("panet_plugin.visualization.attention_pages.MAX_PIXELS", 191)
    with pytest.raises(VisualizationError, match="a page can have 1 to 191 pixels in the image, got 192"):
        attention_page(make_probe(), [(0, 0)], "photo.png")


def test_grids():
    assert grid(5, 4, 10) == [(2, 1)]
    assert grid(7, 1, 3) == [(0, 0), (3, 0), (6, 0)]
    assert len(grid(6, 4, 1)) == 24
    with pytest.raises(VisualizationError, match="got 0"):
        grid(5, 4, 0)
