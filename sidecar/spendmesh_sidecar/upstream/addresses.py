"""Addresses a call may never be connected to, checked when the name is resolved (SSRF)."""

from __future__ import annotations

import ipaddress

_METADATA = (
    ipaddress.ip_network("169.254.0.0/16"),  # link-local: AWS, GCP and Azure instance metadata
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::254/128"),  # AWS metadata over IPv6
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba metadata
    ipaddress.ip_network("168.63.129.16/32"),  # Azure wire server
)


def forbidden(address: str) -> str:
    """
    Why a connection to this IP address is refused; empty when it is allowed.

    Private ranges are allowed: providers may be Services of the cluster. IPv4-mapped IPv6 is looked through.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip.version == network.version and ip in network for network in _METADATA):
        return f"{address} is a link-local or metadata address"
    if ip.is_unspecified or ip.is_multicast:
        return f"{address} is not the address of a host"
    return ""
