"""The parts that the plots of docs/ have in common: a page, and a line over places on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

COLOURS = ("#0b6e99", "#b5541c", "#4a7a2c", "#7a3b8f", "#c0392b", "#7f6a00", "#444444", "#1f9e89", "#e377c2", "#000000")


def page(width: int, height: int, parts: Iterable[str]) -> str:
    """A whole document on white."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
            'font-size="12" fill="#222">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def line(places: Sequence[tuple[float, float]], colour: str, more: str = "") -> str:
    """Through these places, with `more` attributes."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{more}/>'


def key(x: float, y: float, colour: str, name: str) -> str:
    """What a line's colour stands for."""
    stroke = f'<line x1="{x}" y1="{y - 4}" x2="{x + 18}" y2="{y - 4}" stroke="{colour}" stroke-width="2"/>'
    return f'{stroke}\n<text x="{x + 24}" y="{y}">{name}</text>'
