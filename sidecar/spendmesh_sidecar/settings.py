"""What the sidecar is told at start; the only reader of its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spendmesh_sidecar.core.ledger.recovery import Durability
from spendmesh_sidecar.limits import Limits


class SettingsError(ValueError):
    """A variable that the sidecar cannot start with; the message names it and the fix."""


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port to listen on; port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, name: str) -> Address:
        """Read ``host:port``; the last colon splits, so that IPv6 hosts need no brackets. Raises SettingsError."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise SettingsError(f"{name}={text!r} is not host:port, such as 127.0.0.1:15400")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine (or pod) can reach it."""
        return self.host in ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one sidecar. Paths may be None in `run` and `demo`, which hand keys and tokens in."""

    control_url: str
    listen: Address = Address("127.0.0.1", 15400)
    admin: Address = Address("127.0.0.1", 15490)
    control_ca: str = ""
    """PEM text; empty with a plain loopback control server."""
    token_file: Path | None = None
    keys_dir: Path | None = None
    state_dir: Path | None = None
    """For the ledger's log and the last good policy; None: neither outlives the process."""
    durability: Durability = "Process"
    keep_policy: bool = True
    """Whether the policy is kept in `state_dir`; not where the control server is as near as the folder."""
    bootstrap_file: Path | None = None
    client_token: str = ""
    """What clients must show as their API key; mandatory when `listen` is not loopback."""
    namespace: str = ""
    pod_name: str = ""
    pod_uid: str = ""
    otlp_traces_url: str = ""
    otlp_headers: tuple[tuple[str, str], ...] = ()
    resource: tuple[tuple[str, str], ...] = ()
    """OpenTelemetry resource attributes."""
    first_policy_seconds: float = 5.0
    """How long a start waits for a policy before it serves without one."""
    shutdown_seconds: float = 5.0
    """For requests in flight, and again for the last reports; the kubelet's default grace period is 30 s in all."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.listen.is_loopback and not self.client_token:
            raise SettingsError(
                f"listening on {self.listen.host} lets other machines spend: set a client token, or listen on 127.0.0.1"
            )


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Read `SPENDMESH_*` and the OpenTelemetry exporter variables. Raises SettingsError."""
    control_url = environ.get("SPENDMESH_CONTROL_URL", "")
    if not control_url.startswith(("https://", "http://")):
        raise SettingsError(f"SPENDMESH_CONTROL_URL={control_url!r} is not a URL of a control server")
    return Settings(
        control_url=control_url.rstrip("/"),
        listen=Address.parse(environ.get("SPENDMESH_LISTEN", "127.0.0.1:15400"), "SPENDMESH_LISTEN"),
        admin=Address.parse(environ.get("SPENDMESH_ADMIN_LISTEN", "127.0.0.1:15490"), "SPENDMESH_ADMIN_LISTEN"),
        control_ca=environ.get("SPENDMESH_CONTROL_CA", ""),
        token_file=_path(environ, "SPENDMESH_TOKEN_FILE"),
        keys_dir=_path(environ, "SPENDMESH_KEYS_DIR"),
        state_dir=_path(environ, "SPENDMESH_STATE_DIR"),
        durability=_durability(environ),
        bootstrap_file=_path(environ, "SPENDMESH_BOOTSTRAP_FILE"),
        client_token=environ.get("SPENDMESH_CLIENT_TOKEN", ""),
        namespace=environ.get("SPENDMESH_POD_NAMESPACE", ""),
        pod_name=environ.get("SPENDMESH_POD_NAME", ""),
        pod_uid=environ.get("SPENDMESH_POD_UID", ""),
        otlp_traces_url=_traces_url(environ),
        otlp_headers=_pairs(environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""), "OTEL_EXPORTER_OTLP_HEADERS"),
        resource=_resource(environ),
    )


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    value = environ.get(name, "")
    return Path(value) if value else None


def _durability(environ: Mapping[str, str]) -> Durability:
    match environ.get("SPENDMESH_DURABILITY") or "Process":
        case "Process":
            return "Process"
        case "Node":
            return "Node"
        case other:
            raise SettingsError(
                f"SPENDMESH_DURABILITY={other!r} is neither Process (the ledger survives a killed sidecar) nor Node "
                "(it also survives the machine, and every call waits for the disk)"
            )


def _traces_url(environ: Mapping[str, str]) -> str:
    """OTLP/HTTP: the traces variable is taken as it is, the general one gets /v1/traces (OTel exporter spec)."""
    if url := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""):
        return url
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").rstrip("/")
    return f"{base}/v1/traces" if base else ""


def _pairs(text: str, name: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise SettingsError(f"{name} has {item.split(':')[0]!r} without '='; write key=value,key=value")
        pairs.append((key.strip(), value.strip()))
    return tuple(pairs)


def _resource(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    given = dict(_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""), "OTEL_RESOURCE_ATTRIBUTES"))
    attributes = {
        "service.name": environ.get("OTEL_SERVICE_NAME") or given.pop("service.name", "spendmesh-sidecar"),
        "k8s.namespace.name": environ.get("SPENDMESH_POD_NAMESPACE", ""),
        "k8s.pod.name": environ.get("SPENDMESH_POD_NAME", ""),
        "k8s.pod.uid": environ.get("SPENDMESH_POD_UID", ""),
        **given,
    }
    return tuple((key, value) for key, value in attributes.items() if value)
