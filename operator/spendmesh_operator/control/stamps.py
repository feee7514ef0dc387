"""
Which policy is newer: the leader numbers each digest at the moment it comes into force. Pure.

A sidecar refuses an older stamp, so a replica that lags behind cannot take it back. A digest that comes into force
again (an edit that was undone) gets a new number. The leader numbers only what it compiles itself now: a follower
that is ahead or behind is told to wait.
"""

from __future__ import annotations

from collections.abc import Iterable

from spendmesh_sidecar.protocol import Stamp


class StampBook:
    """Stamps of all policies that are in force at the leader."""

    def __init__(self) -> None:
        self._epoch = 0
        self._sequence = 0
        self._stamps: dict[str, Stamp] = {}

    def in_force(self, epoch: int, digests: Iterable[str]) -> None:
        """
        Exactly these digests are in force, under this epoch.

        A new epoch numbers all anew. What is in force already keeps its number.
        """
        if epoch > self._epoch:
            self._epoch, self._sequence, self._stamps = epoch, 0, {}
        kept: dict[str, Stamp] = {}
        for digest in sorted(set(digests)):
            kept[digest] = self._stamps.get(digest) or self._next()
        self._stamps = kept

    def stamp(self, digest: str) -> Stamp | None:
        """The stamp of a digest; None if it is not in force here."""
        return self._stamps.get(digest)

    @property
    def newest(self) -> Stamp:
        """The last stamp that was given."""
        return Stamp(epoch=self._epoch, sequence=self._sequence)

    def _next(self) -> Stamp:
        self._sequence += 1
        return Stamp(epoch=self._epoch, sequence=self._sequence)
