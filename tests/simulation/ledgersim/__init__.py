"""
Deterministic simulation of the whole ledger: one seed, one history, replayed exactly.

Event loops, clocks, network and disk are ours (`loop`, `network`, `disk`); coordinators, leases, ledgers and exchanges
are the product's own classes. `python -m ledgersim` with `tests/simulation` on the path runs it; `make sim` does that.
"""
