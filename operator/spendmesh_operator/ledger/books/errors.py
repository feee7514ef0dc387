"""
What the books refuse to do, as the errors that they raise; the control server has a status for each.
"""

from __future__ import annotations


class LedgerError(Exception):
    """Base of what the books refuse to do."""


class BadRequest(LedgerError):
    """The message itself is wrong (400)."""


class NotYours(LedgerError):
    """The lease or nonce belongs to another pod (403)."""


class HolderFenced(LedgerError):
    """This nonce was replaced or frozen: the sidecar must take a new one (409)."""


class InvariantViolated(LedgerError):
    """A sum that must hold does not. The grant is stopped, the process is not."""
