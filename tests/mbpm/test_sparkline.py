"""A curve in one line."""

from __future__ import annotations

from mbpm.sparkline import BARS, PLAIN, sparkline


def test_a_falling_curve_falls_and_is_as_wide_as_asked() -> None:
    line = sparkline([100 - i for i in range(1000)], 8)
    assert line == BARS[::-1]
    assert len(sparkline([1.0, 2.0, 3.0], 30)) == 3


def test_without_unicode_and_without_change_it_is_plain() -> None:
    assert set(sparkline(list(range(50)), 10, "ascii")) <= set(PLAIN)
    assert sparkline([2.0] * 5, 5) == BARS[0] * 5
    assert sparkline([]) == ""
