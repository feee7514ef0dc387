"""Max-min fair parts of a whole in whole units: nobody gets more than it wants while another wants more. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def fair_parts(whole: int, wants: Sequence[int], turn: int = 0) -> list[int]:
    """
    Parts of `whole` for each of `wants`, in whole units.

    What does not divide goes one by one to those who want more, beginning at another one each `turn`: where there is
    less than one unit for each, everybody gets one now and then.
    """
    parts = [0] * len(wants)
    left = max(0, whole)
    hungry = [index for index, want in enumerate(wants) if want > 0]
    while hungry and left >= len(hungry):
        level = left // len(hungry)
        modest = [index for index in hungry if wants[index] - parts[index] <= level]
        if not modest:
            for index in hungry:
                parts[index] += level
            left -= level * len(hungry)
            break
        for index in modest:
            left -= wants[index] - parts[index]
            parts[index] = wants[index]
        hungry = [index for index in hungry if parts[index] < wants[index]]
    for offset in range(min(left, len(hungry))):
        parts[hungry[(turn + offset) % len(hungry)]] += 1
    return parts
