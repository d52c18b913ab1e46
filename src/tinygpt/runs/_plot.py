"""A line chart as SVG: points over a logarithmic axis, with a band, as any browser shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 70, 20, 40, 50


def svg(x: Sequence[float], lines: Sequence[tuple[str, Sequence[float]]], *, title: str, x_label: str) -> str:
    """The chart of some named lines over x > 0, the first of which sets the scale on the left; each has its
    own range where there are several, and it is in the legend."""
    low, high = math.log2(min(x)), math.log2(max(x))
    across = (WIDTH - LEFT - RIGHT) / ((high - low) or 1.0)

    def at(value: float) -> float:
        return LEFT + (math.log2(value) - low) * across

    text = 'font-family="sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-family="sans-serif" font-size="15">{escape(title)}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" {text}>{escape(x_label)}</text>',
    ]
    for value in x:
        where = f'x="{at(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle"'
        parts.append(f"<text {where} {text}>{value:g}</text>")
    for i, (name, values) in enumerate(lines):
        colour = ("#1f5fa8", "#c2571a", "#2f7d32")[i % 3]
        least, most = min(values), max(values)
        tall = (HEIGHT - TOP - BOTTOM) / ((most - least) or 1.0)
        points = [(at(a), HEIGHT - BOTTOM - (b - least) * tall) for a, b in zip(x, values, strict=True)]
        drawn = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        label = f"{escape(name)}: {least:.4g} to {most:.4g}"
        parts.append(f'<text x="{LEFT + 10}" y="{TOP + 16 + 16 * i}" {text} fill="{colour}">{label}</text>')
        if not i:
            for value, y in ((least, HEIGHT - BOTTOM), (most, TOP)):
                parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" {text} text-anchor="end">{value:.3g}</text>')
    frame = f'd="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"'
    return "\n".join([*parts, f'<path {frame} fill="none" stroke="#444"/>', "</svg>"]) + "\n"
