"""Where an exchange stands between two reports of its driver."""

from __future__ import annotations

from enum import Enum


class ExchangeError(RuntimeError):
    """A step was reported that was not asked for: a defect of the driver."""


class Phase(Enum):
    """By the report that is due."""

    NEW = "begin"
    ACQUIRING = "acquired"
    ATTEMPTING = "observe"
    WAITING = "resume"
    DONE = "close"
