"""What the operator is told at start; the only reader of its environment. The chart's Deployment writes it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

CONTROL_PORT: Final = 8443
WEBHOOK_PORT: Final = 9443
HEALTH_PORT: Final = 8080

_LEVELS: Final = {"Debug": logging.DEBUG, "Info": logging.INFO, "Warning": logging.WARNING, "Error": logging.ERROR}

Choice = TypeVar("Choice", bound=str)


class SettingsError(ValueError):
    """A variable that the operator cannot start with; the message names it and the fix."""


@dataclass(frozen=True, kw_only=True)
class SidecarSettings:
    """What injected pods get; quantities as Kubernetes writes them, empty for none."""

    image: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"]
    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    otlp_endpoint: str
    durability: Literal["Process", "Node"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one replica."""

    cluster: str
    """Ledger domain, and name of the BudgetLedger that holds its books."""
    ledger_store: Literal["BudgetLedger", "PostgreSQL"]
    ledger_dsn_file: Path | None
    """Where PostgreSQL's address is, with its password. With BudgetLedgers as store: from there the books move back."""
    ledger_member: str
    """This cluster among those that share a domain in PostgreSQL."""
    scope: Literal["Cluster", "Namespace"]
    unbudgeted: Literal["Allow", "Deny"]
    log_level: int
    name: str
    """Of the release; the Lease is called so, and Services and Secret begin with it."""
    namespace: str
    service_account: str
    pod_name: str
    host: str
    """Address that the listeners bind and that the leader tells the others."""
    control_port: int
    webhook_port: int
    health_port: int
    token_file: Path
    """The projected token by which replicas know each other."""
    webhook_configuration: str
    """Empty: injection is off."""
    kubeconfig: str
    """Empty: the pod's service account."""
    sidecar: SidecarSettings

    @property
    def watched_namespace(self) -> str:
        """Empty: all."""
        return self.namespace if self.scope == "Namespace" else ""

    @property
    def control_host(self) -> str:
        """Name of the control server's Service, which its certificate is for."""
        return f"{self.name}-control.{self.namespace}.svc"

    @property
    def webhook_host(self) -> str:
        """Name of the webhook's Service."""
        return f"{self.name}-webhook.{self.namespace}.svc"

    @property
    def own_address(self) -> str:
        """Where other replicas reach this one's control server."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.control_port}"


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Read the environment. Raises SettingsError."""
    reader = _Reader(environ)
    stores: tuple[Literal["BudgetLedger", "PostgreSQL"], ...] = ("BudgetLedger", "PostgreSQL")
    ledger_store = reader.choice("SPENDMESH_LEDGER_STORE", "BudgetLedger", stores)
    of_database = "SPENDMESH_LEDGER_DSN_FILE"
    dsn_file = reader.text(of_database) if ledger_store == "PostgreSQL" else environ.get(of_database, "")
    return Settings(
        cluster=reader.text("SPENDMESH_CLUSTER"),
        ledger_store=ledger_store,
        ledger_dsn_file=Path(dsn_file) if dsn_file else None,
        ledger_member=environ.get("SPENDMESH_LEDGER_MEMBER") or reader.text("SPENDMESH_CLUSTER"),
        scope=reader.choice("SPENDMESH_SCOPE", "Cluster", ("Cluster", "Namespace")),
        unbudgeted=reader.choice("SPENDMESH_UNBUDGETED", "Allow", ("Allow", "Deny")),
        log_level=_LEVELS[reader.choice("SPENDMESH_LOG_LEVEL", "Info", tuple(_LEVELS))],
        name=reader.text("SPENDMESH_NAME"),
        namespace=reader.text("POD_NAMESPACE"),
        service_account=reader.text("SPENDMESH_SERVICE_ACCOUNT"),
        pod_name=reader.text("POD_NAME"),
        host=reader.text("POD_IP"),
        control_port=reader.port("SPENDMESH_CONTROL_PORT", CONTROL_PORT),
        webhook_port=reader.port("SPENDMESH_WEBHOOK_PORT", WEBHOOK_PORT),
        health_port=reader.port("SPENDMESH_HEALTH_PORT", HEALTH_PORT),
        token_file=Path(reader.text("SPENDMESH_TOKEN_FILE")),
        webhook_configuration=environ.get("SPENDMESH_WEBHOOK_CONFIGURATION", ""),
        kubeconfig=environ.get("KUBECONFIG", ""),
        sidecar=SidecarSettings(
            image=reader.text("SPENDMESH_SIDECAR_IMAGE"),
            pull_policy=reader.choice(
                "SPENDMESH_SIDECAR_PULL_POLICY", "IfNotPresent", ("Always", "IfNotPresent", "Never")
            ),
            cpu_request=environ.get("SPENDMESH_SIDECAR_CPU", ""),
            cpu_limit=environ.get("SPENDMESH_SIDECAR_CPU_LIMIT", ""),
            memory_request=environ.get("SPENDMESH_SIDECAR_MEMORY", ""),
            memory_limit=environ.get("SPENDMESH_SIDECAR_MEMORY_LIMIT", ""),
            otlp_endpoint=environ.get("SPENDMESH_OTLP_ENDPOINT", ""),
            durability=reader.choice("SPENDMESH_SIDECAR_DURABILITY", "Process", ("Process", "Node")),
        ),
    )


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str:
        value = self._environ.get(name, "")
        if not value:
            raise SettingsError(f"{name} is not set: the chart's Deployment sets it")
        return value

    def choice(self, name: str, default: Choice, choices: tuple[Choice, ...]) -> Choice:
        value = self._environ.get(name) or default
        if value not in choices:
            raise SettingsError(f"{name}={value!r} is none of {', '.join(choices)}")
        return value

    def port(self, name: str, default: int) -> int:
        value = self._environ.get(name) or str(default)
        if not value.isdigit() or int(value) > 65535:
            raise SettingsError(f"{name}={value!r} is not a port")
        return int(value)
