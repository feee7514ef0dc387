"""The operator's environment is the chart's, and what is wrong with it is named: `spendmesh_operator.settings`."""

from __future__ import annotations

import logging

import pytest

from spendmesh_operator.settings import SettingsError, from_environ

ENVIRONMENT = {
    "SPENDMESH_CLUSTER": "prod",
    "SPENDMESH_NAME": "spendmesh",
    "SPENDMESH_SERVICE_ACCOUNT": "spendmesh",
    "SPENDMESH_TOKEN_FILE": "/var/run/spendmesh/token/token",
    "SPENDMESH_SIDECAR_IMAGE": "spendmesh-sidecar:0.1.0",
    "POD_NAME": "spendmesh-1",
    "POD_NAMESPACE": "spendmesh-system",
    "POD_IP": "10.0.0.7",
}


def test_defaults_are_the_charts() -> None:
    settings = from_environ(ENVIRONMENT)
    assert settings.scope == "Cluster" and settings.watched_namespace == "" and settings.unbudgeted == "Allow"
    assert settings.log_level == logging.INFO and settings.webhook_configuration == ""
    assert settings.control_host == "spendmesh-control.spendmesh-system.svc"
    assert settings.own_address == "https://10.0.0.7:8443"


def test_postgresql_needs_its_address_and_takes_the_clusters_name_for_its_own() -> None:
    """Two clusters that share a domain say who they are; one alone need not."""
    postgres = {**ENVIRONMENT, "SPENDMESH_LEDGER_STORE": "PostgreSQL", "SPENDMESH_LEDGER_DSN_FILE": "/run/dsn"}
    settings = from_environ(postgres)
    assert (settings.ledger_store, str(settings.ledger_dsn_file)) == ("PostgreSQL", "/run/dsn")
    assert settings.ledger_member == "prod"
    assert from_environ({**postgres, "SPENDMESH_LEDGER_MEMBER": "eu"}).ledger_member == "eu"
    with pytest.raises(SettingsError, match="SPENDMESH_LEDGER_DSN_FILE"):
        from_environ({**postgres, "SPENDMESH_LEDGER_DSN_FILE": ""})


def test_an_ipv6_address_is_written_as_a_url_needs_it() -> None:
    assert from_environ({**ENVIRONMENT, "POD_IP": "fd00::7"}).own_address == "https://[fd00::7]:8443"


def test_one_namespace_is_the_releases_own() -> None:
    assert from_environ({**ENVIRONMENT, "SPENDMESH_SCOPE": "Namespace"}).watched_namespace == "spendmesh-system"


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        from_environ({key: value for key, value in ENVIRONMENT.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPENDMESH_SCOPE", "cluster"),
        ("SPENDMESH_UNBUDGETED", "Maybe"),
        ("SPENDMESH_LEDGER_STORE", "Postgres"),
        ("SPENDMESH_LOG_LEVEL", "TRACE"),
        ("SPENDMESH_CONTROL_PORT", "https"),
        ("SPENDMESH_HEALTH_PORT", "70000"),
        ("SPENDMESH_SIDECAR_PULL_POLICY", "always"),
        ("SPENDMESH_SIDECAR_DURABILITY", "Disk"),
    ],
)
def test_a_value_that_means_nothing_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}='{value}'"):
        from_environ({**ENVIRONMENT, name: value})
