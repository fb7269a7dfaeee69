"""The table of implementations, and the rule by which one is chosen."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from attention_cases import make_inputs

from panet_plugin.ops import IMPLEMENTATIONS, backends, fused, pyramid_attention
from panet_plugin.ops.backends import BACKENDS, RULE, Row, choose
from panet_plugin.ops.problem import Problem

PAGE = Path(__file__).parents[2] / "docs" / "attention.md"


def make_problem(device="cpu", dtype=torch.float32, scores=1000, **options):
    """Return something like a problem, of a device that need not be there."""
    query, keys, values = make_inputs((4, 4), 1, dtype=dtype)
    problem = Problem(query, keys, keys, values, **options)
    there = SimpleNamespace(
        device=torch.device(device), dtype=dtype, is_cuda=device != "cpu", element_size=query.element_size
    )
    names = ("window", "ksize", "hard")
    what = {name: getattr(problem, name) for name in names}
    return SimpleNamespace(query=there, scores=scores, why_not_published=problem.why_not_published, **what)


def test_every_implementation_is_in_the_table():
    assert ("auto", *BACKENDS) == IMPLEMENTATIONS == ("auto", "dense", "sdpa", "stream", "fused", "triton")
    for name, backend in BACKENDS.items():
        assert backend.name == name and callable(backend.why_not) and callable(backend.forward)
    assert backends.DIRECT == ("dense", "sdpa")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dtype": torch.float64}, "stream"),
        ({"ksize": 5}, "stream"),
        ({"hard": True}, "stream"),
        ({"device": "cuda", "scores": 2**28}, "dense"),
        ({"device": "cuda", "scores": 2**29}, "stream"),
        ({"device": "cuda", "scores": 2**27, "dtype": torch.float64}, "dense"),
        ({"device": "cuda", "scores": 2**28, "dtype": torch.float64}, "stream"),
        ({"device": "cuda", "scores": 2**28, "window": 3}, "dense"),
    ],
)
def test_what_auto_is(options, expected):
    assert choose(make_problem(**options)).name == expected


@pytest.mark.skipif(not fused.is_available(), reason="no C++ compiler")
def test_auto_is_the_kernel_where_it_can():
    assert choose(make_problem()).name == choose(make_problem(window=3)).name == "fused"


def test_published_patches_are_small_enough_for_dense():
    query = torch.empty(16, 1, 48, 48)
    keys = [torch.empty(16, 1, side, side) for side in (48, 43, 38, 33, 28)]
    (row,) = [row for row in RULE if row.implementation == "dense"]
    assert Problem(query, keys, keys, keys).scores * 4 <= row.scores * 2**30


@pytest.mark.parametrize(("value", "expected"), [("1", "triton"), ("0", "dense"), (None, "dense")])
def test_the_environment_chooses_triton_whenever_it_is_set(monkeypatch, value, expected):
    monkeypatch.delenv(backends.AUTO_TRITON, raising=False)
    monkeypatch.setattr(BACKENDS["triton"], "why_not", lambda problem: None)
    if value is not None:
        monkeypatch.setenv(backends.AUTO_TRITON, value)
    assert choose(make_problem("cuda")).name == expected
    # What it saves is of another shape: not in a program that chooses when it runs.
    assert choose(make_problem("cuda"), backends.IN_PROGRAMS).name == "stream"


def test_rows_are_asked_in_order(monkeypatch):
    rows = [Row(name, None, None, window, math.inf, None, "") for name, window in (("sdpa", True), ("dense", None))]
    monkeypatch.setattr(backends, "RULE", rows)
    assert choose(make_problem(window=2)).name == "sdpa"
    assert choose(make_problem()).name == choose(make_problem(window=2, hard=True)).name == "dense"


def test_the_page_shows_the_rule():
    page = PAGE.read_text()
    for row in RULE:
        (line,) = [line for line in page.splitlines() if line.startswith("|") and line.endswith(f"| {row.basis} |")]
        assert f"`{row.implementation}`" in line
        assert row.scores == math.inf or f"{row.scores} GiB" in line
        assert row.asked is None or row.asked in line


def test_compiled_for_cuda_the_choice_is_made_by_size(monkeypatch):
    """The rule and what it asks can be traced; on CUDA it is asked in Python, since autograd may have a part."""
    row = Row("dense", None, None, None, 1e-6, None, "")
    monkeypatch.setattr(backends, "RULE", (row, RULE[-1]))
    names = []

    def function(x):
        names.append(choose(Problem(x, [x], [x], [x])).name)
        return x + len(names[-1])

    compiled = torch.compile(function, backend="eager", fullgraph=True)
    for side, expected in ((4, "dense"), (8, "stream")):
        assert torch.equal(
            compiled(torch.zeros(1, 1, side, side)), torch.full((1, 1, side, side), float(len(expected)))
        )


def test_only_those_that_recompute_run_under_the_operator():
    inputs = make_inputs((5, 5), 1)
    for name in ("dense", "sdpa", "stream"):
        node = pyramid_attention(*inputs, implementation=name).grad_fn
        assert ("pyramid_attention" in node.name()) == (name == "stream")
