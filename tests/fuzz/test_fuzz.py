"""Readers of files from strangers against what hypothesis makes of small files; `make fuzz` looks on with atheris."""

import pytest
import targets
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("name", targets.TARGETS)
def test_good_files_are_read(name):
    target = targets.TARGETS[name]
    assert [number for number, content in enumerate(target.good()) if not targets.check(target, content)] == []


@pytest.mark.parametrize("name", targets.TARGETS)
def test_bad_files_are_refused(name):
    target = targets.TARGETS[name]
    assert [number for number, content in enumerate(target.bad()) if targets.check(target, content)] == []


@st.composite
def edits(draw, contents):
    """Draw one of some contents, with some bytes replaced, added or removed, or cut off."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.one_of(st.integers(0, 8), st.just(len(content))))
        content[start : start + length] = draw(st.one_of(st.binary(max_size=8), st.just(b"\xff" * 4)))
    return bytes(content)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_changed_files_are_read_or_refused(name):
    target = targets.TARGETS[name]

    @settings(max_examples=60, database=None)
    @given(edits([*target.good(), *target.bad()]))
    def try_one(content):
        targets.check(target, content)

    try_one()
