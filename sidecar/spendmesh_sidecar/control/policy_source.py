"""
Receive, check and swap the policy; on any fault keep the last good one.

Order of trust: a snapshot's digest is computed here, its stamp must not be older than the one obeyed, it must
decode, its price table must match its digest. What fails is answered with a NACK and changes nothing (contract §3).
The last good pair is kept in the state directory, so that a restarted container starts without the operator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from spendmesh_sidecar import protocol
from spendmesh_sidecar.control.client import ControlClient, ControlRefused, ControlUnavailable
from spendmesh_sidecar.keys import KeySource
from spendmesh_sidecar.policy import Policy, PolicyError, PriceTable, decode_policy, decode_price_table, digest

log = logging.getLogger("spendmesh.policy")

BACKOFF_SECONDS = (0.2, 5.0)
"""Full jitter between attempts to reconnect; capped low, because one pod makes one connection."""
KEYS_SECONDS = 2.0
"""Between two looks at which keys are there; kubelet takes up to a minute to bring a changed Secret."""
SAVED = "policy"
"""File in the state directory."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A policy in force with what it is priced by."""

    policy: Policy
    digest: str
    stamp: protocol.Stamp
    prices: PriceTable


class PolicySource:
    """Keeps `current` right. `changed` is called on the loop with each newly installed policy."""

    def __init__(
        self,
        client: ControlClient,
        keys: KeySource,
        nonce: Callable[[], str],
        rng: Random,
        changed: Callable[[Installed], None],
        state_dir: Path | None = None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._nonce = nonce
        self._rng = rng
        self._changed = changed
        self._state_dir = state_dir
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._acknowledging = asyncio.Lock()
        self._ack: protocol.Ack | None = None
        self._ack_taken = False
        self._table = b""
        """As it came: an encoding of what we understood of it could have another digest."""
        self.current: Installed | None = None
        self.connected = False
        self.last_error = ""

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """What runs in the background."""
        return self._tasks

    def restore(self, bootstrap: Path | None) -> None:
        """Start from the newer of the saved copy and the one given at injection; neither is not an error."""
        saved = self._state_dir / SAVED if self._state_dir else None
        for path in (saved, bootstrap):
            if path is None or not path.exists() or not path.stat().st_size:
                continue
            try:
                packed = protocol.unpack_bootstrap(path.read_text(encoding="ascii"))
                self._install(packed.snapshot, bytes(packed.price_table))
            except (OSError, ValueError) as error:
                log.warning("ignored %s: %s", path.name, error)

    async def start(self) -> None:
        """Follow the stream until `stop`."""
        self._tasks = (
            asyncio.create_task(self._follow(), name="policy"),
            asyncio.create_task(self._watch_keys(), name="policy-keys"),
        )

    async def stop(self) -> None:
        """End the stream; the policy stays."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self) -> None:
        failures = 0
        while True:
            now = self.current
            query = protocol.StreamQuery(
                nonce=self._nonce(),
                digest=now.digest if now else "",
                epoch=now.stamp.epoch if now else 0,
                sequence=now.stamp.sequence if now else 0,
            )
            pause = 0.0
            try:
                async with self._client.stream(query) as events:
                    async for event in events:
                        self.connected, failures = True, 0
                        if isinstance(event, protocol.Snapshot):
                            await self._offer(event)
                        elif isinstance(event, protocol.Drain):
                            pause = event.retry_in_ms / 1000
                            break
            except (ControlUnavailable, ControlRefused) as error:
                self._say(str(error))
            self.connected = False
            failures += 1
            cap = min(BACKOFF_SECONDS[1], BACKOFF_SECONDS[0] * 2 ** min(failures, 10))
            await asyncio.sleep(self._rng.uniform(0, max(pause, cap)))

    async def _offer(self, snapshot: protocol.Snapshot) -> None:
        """Install and ACK, or keep what is and NACK."""
        error = ""
        try:
            await self._accept(snapshot)
        except PolicyError as refused:
            error = str(refused)
            log.error("kept the last policy: %s", error)
        ack = protocol.Ack(nonce=self._nonce(), digest=snapshot.digest, stamp=snapshot.stamp, error=error)
        async with self._acknowledging:
            await self._acknowledge(ack)

    async def _watch_keys(self) -> None:
        """Acknowledge again when keys have come or gone, or when the last word was not heard."""
        while True:
            await asyncio.sleep(KEYS_SECONDS)
            async with self._acknowledging:
                said = self._ack
                if said is not None and not (self._ack_taken and said.missing_keys == self._missing_keys()):
                    await self._acknowledge(msgspec.structs.replace(said, nonce=self._nonce()))

    async def _acknowledge(self, ack: protocol.Ack) -> None:
        self._ack = msgspec.structs.replace(ack, missing_keys=self._missing_keys())
        self._ack_taken = False
        try:
            await self._client.acknowledge(self._ack)
        except (ControlUnavailable, ControlRefused) as lost:
            self._say(f"policy is in force, but its acknowledgement was not taken: {lost}")
        else:
            self._ack_taken = True

    def _missing_keys(self) -> tuple[str, ...]:
        current = self.current
        wanted = {p.key_name for p in current.policy.providers if p.auth == "APIKey"} if current else set()
        return tuple(sorted(name for name in wanted if self._keys.get(name) is None))

    async def _accept(self, snapshot: protocol.Snapshot) -> None:
        policy = _verified(snapshot)
        current = self.current
        if current is not None and snapshot.digest == current.digest:
            self.current = Installed(policy, snapshot.digest, max(current.stamp, snapshot.stamp), current.prices)
            return
        table = self._table
        if current is None or current.policy.price_table != policy.price_table:
            table = await self._client.price_table(policy.price_table)
        self._install(snapshot, table)
        self._save(snapshot, table)

    def _install(self, snapshot: protocol.Snapshot, table: bytes) -> None:
        policy = _verified(snapshot)
        current = self.current
        if current is not None and snapshot.stamp < current.stamp:
            raise PolicyError(
                f"stamp {snapshot.stamp.epoch}.{snapshot.stamp.sequence} is older than "
                f"{current.stamp.epoch}.{current.stamp.sequence}, which is in force"
            )
        if digest(table) != policy.price_table:
            raise PolicyError("price table does not match the digest that the policy names")
        self.current = Installed(policy, snapshot.digest, snapshot.stamp, decode_price_table(table))
        self._table = table
        self._changed(self.current)

    def _save(self, snapshot: protocol.Snapshot, table: bytes) -> None:
        if self._state_dir is None:
            return
        text = protocol.pack_bootstrap(protocol.Bootstrap(snapshot=snapshot, price_table=msgspec.Raw(table)))
        path = self._state_dir / SAVED
        try:
            temporary = path.with_suffix(".new")
            temporary.touch(mode=0o600)
            temporary.write_text(text, encoding="ascii")
            temporary.replace(path)
        except OSError as error:
            log.warning("policy is in force but not saved for a restart: %s", error)

    def _say(self, error: str) -> None:
        """Log a condition once, not at every retry."""
        if error != self.last_error:
            log.warning("control server: %s", error)
        self.last_error = error


def _verified(snapshot: protocol.Snapshot) -> Policy:
    encoded = bytes(snapshot.policy)
    if digest(encoded) != snapshot.digest:
        raise PolicyError("policy does not match its digest")
    return decode_policy(encoded)
