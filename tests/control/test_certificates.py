"""When which certificate is renewed, and that sidecars of any age go on trusting: `kube.certificates`."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from spendmesh_operator.kube.certificates import (
    AUTHORITY_LIFE,
    CERTIFICATE_LIFE,
    Material,
    UnreadableMaterial,
    from_secret,
    renewed,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAMES = ("spendmesh-control.spendmesh-system.svc", "spendmesh-webhook.spendmesh-system.svc")


def trusts(bundle: bytes, material: Material) -> bool:
    """Whether one of the authorities in a bundle signed the serving certificate."""
    for authority in x509.load_pem_x509_certificates(bundle):
        try:
            material.serving.certificate.verify_directly_issued_by(authority)
        except ValueError:
            continue
        else:
            return True
    return False


def test_an_empty_secret_gets_an_authority_of_ten_years_and_a_certificate_of_ninety_days() -> None:
    material = renewed(None, NAMES, NOW)
    assert len(material.authorities) == 1
    assert material.authorities[0].remaining(NOW) > AUTHORITY_LIFE - timedelta(days=1)
    assert CERTIFICATE_LIFE - timedelta(days=1) < material.serving.remaining(NOW) <= CERTIFICATE_LIFE


def test_nothing_is_renewed_before_its_time() -> None:
    material = renewed(None, NAMES, NOW)
    assert renewed(material, NAMES, NOW + timedelta(days=59)) is material


def test_the_certificate_is_renewed_at_two_thirds_and_the_authority_stays() -> None:
    material = renewed(None, NAMES, NOW)
    later = renewed(material, NAMES, NOW + timedelta(days=61))
    assert later.serving.certificate != material.serving.certificate
    assert later.authorities == material.authorities
    assert trusts(material.trust, later)


def test_other_names_need_another_certificate() -> None:
    material = renewed(None, NAMES, NOW)
    assert renewed(material, (*NAMES, "more.svc"), NOW) is not material
    assert renewed(material, tuple(reversed(NAMES)), NOW) is material


def test_sidecars_of_any_age_trust_through_a_change_of_authority() -> None:
    """Checked once a day for twenty years; a pod trusts what it was given for at least three years."""
    material = renewed(None, NAMES, NOW)
    bundles: list[tuple[int, bytes]] = []
    changes = 0
    for day in range(20 * 365):
        now = NOW + timedelta(days=day)
        changed = renewed(material, NAMES, now)
        changes += changed.authorities != material.authorities
        material = changed
        if day % 90 == 0:
            bundles.append((day, material.trust))
            bundles = [(born, bundle) for born, bundle in bundles if day - born <= 3 * 365]
            assert all(trusts(bundle, material) for _, bundle in bundles)
        assert material.serving.remaining(now) > timedelta(days=29)
        assert len(material.authorities) <= 2
    assert changes >= 3


def test_what_is_stored_comes_back() -> None:
    material = renewed(renewed(None, NAMES, NOW), NAMES, NOW + timedelta(days=2500))
    assert len(material.authorities) == 2
    again = from_secret(material.to_secret())
    assert again is not None and again.to_secret() == material.to_secret()
    assert renewed(again, NAMES, NOW + timedelta(days=2501)) is again


def test_an_empty_secret_is_no_material() -> None:
    assert from_secret({}) is None


@pytest.mark.parametrize("item", ["authorities.crt", "authorities.key", "tls.crt", "tls.key"])
@pytest.mark.parametrize("value", [None, b"", b"nonsense"])
def test_a_damaged_secret_is_said_and_not_replaced(item: str, value: bytes | None) -> None:
    """Making a new authority in its place would cut off every running sidecar."""
    items = renewed(None, NAMES, NOW).to_secret()
    if value is None:
        del items[item]
    else:
        items[item] = value
    with pytest.raises(UnreadableMaterial):
        from_secret(items)


def test_a_key_of_another_certificate_is_found() -> None:
    items = renewed(None, NAMES, NOW).to_secret()
    items["tls.key"] = renewed(None, NAMES, NOW).to_secret()["tls.key"]
    with pytest.raises(UnreadableMaterial, match="does not belong"):
        from_secret(items)


def test_openssl_accepts_the_chain_strictly(tmp_path: Path) -> None:
    """Python 3.13 verifies with VERIFY_X509_STRICT by default."""
    material = renewed(None, NAMES, datetime.now(UTC))
    chain = tmp_path / "chain.pem"
    items = material.to_secret()
    chain.write_bytes(items["tls.crt"] + items["tls.key"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    client = ssl.create_default_context(cadata=material.trust.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    shake_hands(server, client, NAMES[0])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client, "elsewhere.svc")


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A TLS handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(8):
        done = 0
        for end in ends:
            try:
                end.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                continue
        if done == len(ends):
            return
    raise AssertionError("no handshake")
