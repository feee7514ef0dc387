"""
A provider that loses most of its capacity for half a minute, and what retry policies make of it.

The classes that decide are the sidecar's own, whole exchanges of them; time, clients and the provider are simulated.
The same seed gives the same run. Left out: budgets in money, networks, and providers that shed load.
"""
