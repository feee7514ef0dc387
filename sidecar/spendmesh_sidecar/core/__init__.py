"""
Decisions of the sidecar, without I/O, clock or chance: `now` and `rng` are handed in.

The sidecar, the simulator and the operator's `check` and `plan` share this code.
What does not belong here: asyncio, aiohttp, logging, Kubernetes, files. import-linter checks it.
"""
