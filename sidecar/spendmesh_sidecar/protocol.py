"""
The wire between sidecar and control server: policy stream, ACK, leases and usage reports (contract §3, §4).

HTTP/1.1 and JSON; a bearer token says who asks (never the body). Every number in a message is cumulative and
merged by maximum, so a message may be lost, repeated or late without harm. Times are relative (`*_in_ms`), so
that two clocks never have to agree.

| method and path              | request         | answer                                                      |
|------------------------------|-----------------|-------------------------------------------------------------|
| GET  /v1/policy/stream       | `StreamQuery`   | lines of `Snapshot | Heartbeat | Drain` (NDJSON, no end)     |
| GET  /v1/price-tables/SHA256 |                 | canonical `PriceTable`                                      |
| POST /v1/policy/ack          | `Ack`           | 204                                                         |
| POST /v1/leases/acquire      | `AcquireRequest`| `AcquireReply`                                              |
| POST /v1/leases/report       | `ReportRequest` | `ReportReply`                                               |
| POST /v1/observations        | `Observations`  | 204                                                         |
| POST /v1/retries/share       | `ShareRequest`  | `ShareReply`                                                |

Errors: 401 unknown token, 403 not a pod's token, 404 pod not known (yet), 409 holder is fenced (take a new nonce),
503 no leader (retry). Bodies of errors are `{"error": "sentence"}`.
"""

from __future__ import annotations

import base64
import gzip
import io
import zlib

import msgspec

from spendmesh_sidecar.core.failures.retry_grants import ShareGrant as ShareGrant, ShareReport as ShareReport
from spendmesh_sidecar.core.ledger.rights import (
    AccountRef as AccountRef,
    AccountState as AccountState,
    Assigned as Assigned,
    Denial as Denial,
    Lease as Lease,
    LeaseReport as LeaseReport,
    LeaseState as LeaseState,
    Message as Message,
    Want as Want,
    report_digest as report_digest,
)

PATH_STREAM = "/v1/policy/stream"
PATH_PRICE_TABLE = "/v1/price-tables/{digest}"
PATH_ACK = "/v1/policy/ack"
PATH_ACQUIRE = "/v1/leases/acquire"
PATH_REPORT = "/v1/leases/report"
PATH_OBSERVATIONS = "/v1/observations"
PATH_SHARE = "/v1/retries/share"

AUDIENCE = "spendmesh.io"
"""Audience of the projected service account token that a sidecar shows."""

HEARTBEAT_SECONDS = 15
"""The server speaks at least this often; a sidecar that hears nothing for three of them reconnects."""


# --- policy down ------------------------------------------------------------------------------------------


class Stamp(Message, order=True, frozen=True, kw_only=True):
    """When the leader first saw a digest. A sidecar refuses a stamp that is older than the one it obeys."""

    epoch: int
    sequence: int


class StreamQuery(Message, frozen=True, kw_only=True):
    """Query parameters of the stream (camelCase)."""

    nonce: str
    digest: str = ""
    """What the sidecar obeys now; empty at first."""
    epoch: int = 0
    """The highest epoch it has seen: a leader that is behind it raises its own (restored API server)."""
    sequence: int = 0
    """The highest sequence it has seen in that epoch, for the same purpose."""


class Snapshot(Message, tag_field="type", tag="snapshot", frozen=True, kw_only=True):
    """A whole policy. `policy` is the canonical document itself: the digest covers exactly these bytes."""

    digest: str
    stamp: Stamp
    policy: msgspec.Raw


class Heartbeat(Message, tag_field="type", tag="heartbeat", frozen=True, kw_only=True):
    """Nothing changed; the stream lives."""


class Drain(Message, tag_field="type", tag="drain", frozen=True, kw_only=True):
    """This replica is going away: reconnect after `retry_in_ms` with full jitter."""

    retry_in_ms: int = 1000


StreamEvent = Snapshot | Heartbeat | Drain


class Ack(Message, frozen=True, kw_only=True):
    """What a sidecar did with a snapshot. `error` is set when it kept the old policy (NACK)."""

    nonce: str
    digest: str
    stamp: Stamp
    error: str = ""
    missing_keys: tuple[str, ...] = ()
    """`key_name`s of providers whose key the pod does not have (Secret missing, or RestartRequired)."""


# --- rights and usage -------------------------------------------------------------------------------------


MAX_WANTS = 64
"""Accounts of one request: a few budgets of a few limits each, in two periods, for a few users."""
MAX_REPORTS = 1024
"""Reports of one message: about 200 KiB."""


class AcquireRequest(Message, frozen=True, kw_only=True):
    """All or nothing on `need` (contract §4). The same `id` gets the same answer, however often it is sent."""

    id: str
    nonce: str
    wants: tuple[Want, ...]


class AcquireReply(Message, frozen=True, kw_only=True):
    """
    Either leases for every want, or denials for the ones that failed (and no new right at all).

    Beside denials stand the leases that the holder has on the accounts it asked for, as far as they are durable: an
    answer that it never heard may have brought them.
    """

    leases: tuple[Lease, ...] = ()
    denials: tuple[Denial, ...] = ()
    assigned: tuple[Assigned, ...] = ()
    """Wants whose answer is about another account than the one that was asked for."""


class Ejection(Message, frozen=True, kw_only=True):
    """A target that a sidecar leaves alone for now because its calls fail (`core.failures.breaker`)."""

    target: str
    """`alias/model` in the words of the pod's own policy, whichever way the message goes."""
    reopens_in_ms: int


class ReportRequest(Message, frozen=True, kw_only=True):
    """All leases with news."""

    nonce: str
    reports: tuple[LeaseReport, ...]


class ReportReply(Message, frozen=True, kw_only=True):
    """One `LeaseState` for each report. Every sidecar hears one every two seconds, also where it has no lease."""

    leases: tuple[LeaseState, ...]
    hints: tuple[Ejection, ...] = ()
    """Targets that other sidecars have ejected: failures there count sooner, and nothing else follows."""


# --- what only sidecars see -------------------------------------------------------------------------------


MAX_OBSERVED = 64
"""Entries of each kind in one message; a policy has a few providers and a few dozen targets."""


class SpentAccount(Message, frozen=True, kw_only=True):
    """A provider that says that the account behind its key is out of money."""

    provider: str
    """Its alias in the pod's policy."""
    code: str
    """In the provider's words, such as `insufficient_quota`."""


class Observations(Message, frozen=True, kw_only=True):
    """All that is so now: the next message replaces it, and an empty one takes it back. Repeated once a minute."""

    unpaid: tuple[SpentAccount, ...] = ()
    client_retries: tuple[str, ...] = ()
    """How clients have retried on their own lately: `marked` by an SDK, `unmarked` as equal calls after a failure."""
    ejected: tuple[Ejection, ...] = ()
    """Not taken back: each runs out by itself."""


# --- shared retry budgets ---------------------------------------------------------------------------------


MAX_SHARES = 4
"""RetryBudgets of one message: a policy has one that acts and one that is observed, and may just have changed."""


class ShareRequest(Message, frozen=True, kw_only=True):
    """A sidecar's report on each shared RetryBudget of its policy; also how it asks for the next share."""

    instance: str
    """Of the process: a new one knows nothing of what the last one spent."""
    reports: tuple[ShareReport, ...]


class ShareReply(Message, frozen=True, kw_only=True):
    """A grant for each report about a shared RetryBudget of the pod's policy, as the server has it."""

    grants: tuple[ShareGrant, ...]


# --- what a pod is born with ------------------------------------------------------------------------------


class Bootstrap(Message, frozen=True, kw_only=True):
    """
    The snapshot that was current when the pod was injected, and its price table.

    A sidecar obeys it until the stream brings a newer stamp, so that a new pod starts while the operator is away.
    """

    snapshot: Snapshot
    price_table: msgspec.Raw


BOOTSTRAP_BYTES_MAX = 16 * 1024 * 1024
"""Unpacked; the packed text has to fit the annotations of a pod (256 KiB), and JSON of this kind packs 10-20 to 1."""


def pack_bootstrap(bootstrap: Bootstrap) -> str:
    """Text for an annotation: base64 of gzip of JSON. Equal input gives equal text (no time stamp inside)."""
    return base64.b64encode(gzip.compress(msgspec.json.encode(bootstrap), mtime=0)).decode("ascii")


def unpack_bootstrap(text: str) -> Bootstrap:
    """The inverse of `pack_bootstrap`. Raises ValueError with one sentence for anything else."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(base64.b64decode(text.strip(), validate=True))) as unpacked:
            content = unpacked.read(BOOTSTRAP_BYTES_MAX + 1)
        if len(content) > BOOTSTRAP_BYTES_MAX:
            raise ValueError(f"larger than {BOOTSTRAP_BYTES_MAX} bytes")
        return msgspec.json.decode(content, type=Bootstrap)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"bootstrap copy is not readable: {error}") from error
