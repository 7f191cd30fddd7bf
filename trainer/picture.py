"""A picture of an evaluation: what each metric gains, with its interval, as SVG."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from specs.evals import Evals, Metric

WIDTH, ROW, LEFT, RIGHT, TOP = 760, 34, 270, 190, 56


def draw(evals: Evals, title: str) -> str:
    """One row per metric: its relative gain over the base, and the 95 % interval as a bar.

    A metric whose base is 0 has no relative gain and is left out.
    """
    suites: tuple[Metric, ...] = evals.off_domain.suites if evals.off_domain is not None else ()
    metrics = [m for m in (*evals.metrics, *suites) if m.base]
    ends = [x / abs(m.base) for m in metrics for x in (m.gain_low, m.gain_high)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    span = (high - low) or 1.0

    def x(share: float) -> float:
        return LEFT + (share - low) / span * (WIDTH - LEFT - RIGHT)

    height = TOP + ROW * len(metrics) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(12, 22, title, size=15),
        _text(12, 40, "gain over the base, relative, with 95 % intervals"),
        f'<line x1="{x(0):.1f}" y1="{TOP - 6}" x2="{x(0):.1f}" y2="{height - 24}" '
        'stroke="#888888" stroke-dasharray="3 3"/>',
        _text(x(0), height - 8, "no gain", anchor="middle"),
    ]
    for number, metric in enumerate(metrics):
        parts += _row(metric, TOP + ROW * number + ROW // 2, x)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row(m: Metric, y: int, x: Callable[[float], float]) -> list[str]:
    certain = m.gain_low > 0 or m.gain_high < 0
    colour = "#777777" if not certain else "#1b7837" if m.gain > 0 else "#b2182b"
    low, high, middle = (x(g / abs(m.base)) for g in (m.gain_low, m.gain_high, m.gain))
    return [
        _text(LEFT - 12, y + 4, m.name, anchor="end"),
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" '
        'stroke-width="3"/>',
        f'<circle cx="{middle:.1f}" cy="{y}" r="5" fill="{colour}"/>',
        _text(WIDTH - RIGHT + 12, y + 4, f"{m.base:.4g} to {m.pack:.4g}, {m.rows} rows"),
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="#222222">{escape(text)}</text>'
    )
