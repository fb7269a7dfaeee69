"""What a query sees: the definition of the window against its words, over sizes, windows, factors and parts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from panet_plugin.ops.window import Span, visible_keys, visible_range

sides = st.integers(1, 40)


def by_definition(y, size, level, window):
    start = min(max(y - window // 2, 0), max(size - window, 0))
    end = min(start + window, size)
    # Centers in units of half a pixel of the level, so that all is exact in whole numbers.
    return [key for key in range(level) if 2 * level * start <= (2 * key + 1) * size < 2 * level * end]


@given(size=sides, level=sides, window=st.integers(1, 50))
def test_the_window_holds_the_keys_whose_centers_are_in_it(size, level, window):
    first, stop = visible_range(Span(0, size, size), Span(0, level, level), window)
    for y in range(size):
        seen = list(range(first[y], stop[y]))
        expected = by_definition(y, size, level, window)
        assert seen == expected if expected else len(seen) == 1
        assert 0 <= first[y] < stop[y] <= level


@given(size=sides, level=sides, window=st.integers(1, 50))
def test_ranges_move_on_one_by_one(size, level, window):
    first, stop = visible_range(Span(0, size, size), Span(0, level, level), window)
    for edge in (first, stop):
        steps = edge.diff()
        assert (steps >= 0).all()
        if level <= size:
            assert (steps <= 1).all()


@given(size=sides, level=sides)
def test_a_window_as_large_as_the_map_sees_all_keys(size, level):
    first, stop = visible_range(Span(0, size, size), Span(0, level, level), size)
    assert (first == 0).all() and (stop == level).all()


@pytest.mark.parametrize("window", [5, 25])
@pytest.mark.parametrize("level", [60, 48])
def test_odd_windows_are_symmetric_where_no_center_is_on_an_edge(window, level):
    first, stop = visible_range(Span(0, 60, 60), Span(0, level, level), window)
    assert torch.equal(first.flip(0), level - stop)


@given(data=st.data(), size=st.integers(4, 40), level=st.integers(1, 40), window=st.integers(1, 20))
def test_a_part_sees_what_is_there_of_it(data, size, level, window):
    whole_first, whole_stop = visible_range(Span(0, size, size), Span(0, level, level), window)
    start = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, size - start))
    key = data.draw(st.integers(0, level - 1))
    keys = data.draw(st.integers(1, level - key))
    first, stop = visible_range(Span(start, count, size), Span(key, keys, level), window)
    for i in range(count):
        seen = set(range(whole_first[start + i], whole_stop[start + i]))
        there = seen & set(range(key, key + keys))
        found = set(range(key + int(first[i]), key + int(stop[i])))
        assert found == there if there else len(found) == 1
        assert found <= set(range(key, key + keys))


def test_rows_and_columns_of_every_level():
    full, small = visible_keys(4, (9, 7), [(9, 7), (6, 4)])
    (part,) = visible_keys(4, (3, 7), [(8, 7)], (2, 0, 9, 7, 0, 0, 9, 7))
    assert torch.equal(full.rows[0], visible_range(Span(0, 9, 9), Span(0, 9, 9), 4)[0])
    assert torch.equal(small.columns[1], visible_range(Span(0, 7, 7), Span(0, 4, 4), 4)[1])
    assert torch.equal(part.rows[0], full.rows[0][2:5]) and torch.equal(part.columns[1], full.columns[1])
