"""Where an exchange stands between two reports of its driver, and how long it may take."""

from __future__ import annotations

from enum import Enum

DEADLINE_SECONDS = 600.0
"""For all tries and waits together: the read timeout of the official SDKs, after which nobody listens."""
LEASE_WAIT_SECONDS = 2.0
"""The longest a call waits for rights of one period (contract §4)."""


class ExchangeError(RuntimeError):
    """A step was reported that was not asked for: a defect of the driver."""


class LeaseWait:
    """
    How long one try waits for rights: once more if a period has ended meanwhile, whose rights are of no use any more.

    The same if it ended while calls waited that were there before, since they are served first with what comes. Times
    are in monotonic seconds; `latest` is when the whole call ends.
    """

    def __init__(self, seconds: float, latest: float, now: float) -> None:
        self.since, self.until = now - seconds, min(now + seconds, latest)
        self.renewed = False
        self._seconds, self._latest = seconds, latest

    def renew(self, now: float) -> bool:
        """Wait from now on once more; False: the call's own time is over."""
        self.renewed, self.until = True, min(now + self._seconds, self._latest)
        return now < self.until


class Phase(Enum):
    """By the report that is due."""

    NEW = "begin"
    ACQUIRING = "acquired"
    ATTEMPTING = "observe"
    WAITING = "resume"
    DONE = "close"
