"""Where an exchange stands between two reports of its driver, and how long it may take."""

from __future__ import annotations

from enum import Enum

DEADLINE_SECONDS = 600.0
"""For all tries and waits together: the read timeout of the official SDKs, after which nobody listens."""
LEASE_WAIT_SECONDS = 2.0
"""The longest a call waits for rights (contract §4)."""


class ExchangeError(RuntimeError):
    """A step was reported that was not asked for: a defect of the driver."""


class Phase(Enum):
    """By the report that is due."""

    NEW = "begin"
    ACQUIRING = "acquired"
    ATTEMPTING = "observe"
    WAITING = "resume"
    DONE = "close"
