"""
The serving certificate and the authority that signs it: when to renew what, and how to make it. No I/O.

Sidecars carry the authorities that were known when their pod was injected, and nothing reaches them later. So a new
authority is published long before it signs: it appears at two thirds of the old one's life, and the old one goes on
signing until it could no longer cover a whole certificate. Whoever was injected in between trusts both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE: Final = timedelta(days=3650)
CERTIFICATE_LIFE: Final = timedelta(days=90)
"""As Let's Encrypt's; renewed at two thirds, so a month is left to notice that renewal fails."""
RENEW_AT: Final = 2 / 3
CLOCK_SKEW: Final = timedelta(minutes=5)
"""Valid from a little before now, for nodes whose clocks are behind."""


class UnreadableMaterial(ValueError):
    """What is stored is no certificate, or its key does not belong to it."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def spent(self, now: datetime) -> float:
        """Part of its life that is over."""
        begin, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return (now - begin) / (end - begin)

    def remaining(self, now: datetime) -> timedelta:
        """Until it ends."""
        return self.certificate.not_valid_after_utc - now


@dataclass(frozen=True)
class Material:
    """What the Secret holds: authorities, oldest first, and the serving certificate."""

    authorities: tuple[Pair, ...]
    serving: Pair

    @property
    def trust(self) -> bytes:
        """PEM of all authorities, newest first: the webhook's caBundle and what new sidecars trust."""
        return b"".join(_pem(pair.certificate) for pair in reversed(self.authorities))

    def to_secret(self) -> dict[str, bytes]:
        """Items of a Secret; `tls.crt` and `tls.key` as everyone names them."""
        return {
            "ca.crt": self.trust,
            "authorities.crt": b"".join(_pem(pair.certificate) for pair in self.authorities),
            "authorities.key": b"".join(_key_pem(pair.key) for pair in self.authorities),
            "tls.crt": _pem(self.serving.certificate),
            "tls.key": _key_pem(self.serving.key),
        }


def from_secret(items: dict[str, bytes]) -> Material | None:
    """The inverse of `to_secret`; None for an empty Secret, UnreadableMaterial for another one."""
    if not items:
        return None
    try:
        certificates = x509.load_pem_x509_certificates(items["authorities.crt"])
        keys = [_read_key(text) for text in _split_keys(items["authorities.key"])]
        authorities = tuple(Pair(*pair) for pair in zip(certificates, keys, strict=True))
        serving = Pair(x509.load_pem_x509_certificate(items["tls.crt"]), _read_key(items["tls.key"]))
    except (KeyError, ValueError, TypeError) as error:
        raise UnreadableMaterial(f"the TLS Secret is not readable: {error}") from error
    if any(not _belong(pair) for pair in (*authorities, serving)) or not authorities:
        raise UnreadableMaterial("the TLS Secret is not readable: a key does not belong to its certificate")
    return Material(authorities, serving)


def renewed(material: Material | None, dns_names: Sequence[str], now: datetime) -> Material:
    """What should be stored now: the same object when nothing is due."""
    authorities = () if material is None else tuple(a for a in material.authorities if a.remaining(now) > timedelta(0))
    if not authorities or authorities[-1].spent(now) >= RENEW_AT:
        authorities = (*authorities, _new_authority(now))
    signer = next((a for a in authorities if a.remaining(now) >= CERTIFICATE_LIFE), authorities[-1])
    serving = None if material is None else material.serving
    if serving is None or _certificate_is_due(serving, signer, dns_names, now):
        serving = _new_certificate(signer, dns_names, now)
    if material is not None and material.authorities == authorities and material.serving is serving:
        return material
    return Material(authorities, serving)


def _certificate_is_due(serving: Pair, signer: Pair, dns_names: Sequence[str], now: datetime) -> bool:
    names = serving.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if sorted(names.get_values_for_type(x509.DNSName)) != sorted(set(dns_names)):
        return True
    try:
        serving.certificate.verify_directly_issued_by(signer.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return True
    return serving.spent(now) >= RENEW_AT


def _new_authority(now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name keeps two authorities apart where both are trusted.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Spendmesh authority {serial & 0xFFFFFFFF:08x}")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key, serial, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def _new_certificate(signer: Pair, dns_names: Sequence[str], now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    names = sorted(set(dns_names))
    # A common name is at most 64 characters (X.520); nobody reads it where alternative names are.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spendmesh-operator")])
    issuer = signer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder(subject, signer.certificate.subject, key, x509.random_serial_number(), now, CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    return Pair(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now - CLOCK_SKEW + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _read_key(text: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(text, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("a key is not an elliptic-curve key")  # noqa: TRY004  what is stored, not what was passed
    return key


def _split_keys(text: bytes) -> list[bytes]:
    end = b"-----END PRIVATE KEY-----\n"
    return [part + end for part in text.split(end) if part.strip()]


def _belong(pair: Pair) -> bool:
    return pair.certificate.public_key() == pair.key.public_key()
