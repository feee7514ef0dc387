"""Row 29 of the fault table (SSRF): addresses that no provider has are refused where the connection is made."""

from __future__ import annotations

import pytest

from spendmesh_sidecar.upstream.addresses import forbidden


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "fd00:ec2::254", "0.0.0.0", "224.0.0.1", "::"],
)
def test_metadata_and_link_local_addresses_are_refused(address: str) -> None:
    assert forbidden(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "192.168.1.1", "8.8.8.8", "2606:4700::1111", "::1"])
def test_providers_may_be_services_of_the_cluster(address: str) -> None:
    assert forbidden(address) == ""
