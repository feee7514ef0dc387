"""
Money and token prices as integers; no float ever holds money.

An amount is an integer of nano-units (10^-9) of one currency, named `*_nanos`.
A price is an integer of nano-units per million tokens, named `*_nanos_per_million`, so that
"0.05" (USD per million tokens) is 50_000_000 and a price with nine decimals is still exact.
A cost multiplies first and rounds up once (contract §4).
"""

from __future__ import annotations

NANOS_PER_UNIT = 10**9
TOKENS_PER_PRICE = 10**6


def format_nanos(nanos: int, currency: str, decimals: int = 6) -> str:
    """
    Write nano-units for people and headers: ``format_nanos(123_000, "USD")`` is ``"0.000123 USD"``.

    Rounds up at the last decimal shown, as costs do; exact zero stays zero.
    """
    step = 10 ** (9 - decimals)
    shown = -(-nanos // step)
    sign = "-" if shown < 0 else ""
    whole, fraction = divmod(abs(shown), 10**decimals)
    return f"{sign}{whole}.{fraction:0{decimals}d} {currency}"


def cost_nanos(parts: tuple[tuple[int, int], ...]) -> int:
    """
    Cost of (tokens, price in nano-units per million tokens) pairs, rounded up once.

    The sum is exact before the one rounding, so splitting a call into classes never adds a nano-unit per class.
    """
    total = 0
    for tokens, price in parts:
        total += tokens * price
    return -(-total // TOKENS_PER_PRICE)
