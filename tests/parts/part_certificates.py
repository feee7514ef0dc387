"""A certificate authority for one test cluster, and kubeconfig files made of its certificates."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ONE_DAY = datetime.timedelta(days=1)
CA_KEY_USAGE = x509.KeyUsage(  # Python 3.13 and later refuse an authority without it
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes `name.crt` and `name.key` (readable by the owner only)."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.touch(mode=0o600)
        key.write_bytes(self.key)
        return certificate, key


def new_key() -> ec.EllipticCurvePrivateKey:
    """P-256: made in microseconds, where RSA takes a second of a test's start."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key in the form that every part of Kubernetes reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half, PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Authority:
    """Signs server and client certificates for a year. Its key never leaves memory unless `save` is called."""

    def __init__(
        self, key: ec.EllipticCurvePrivateKey | None = None, certificate: x509.Certificate | None = None
    ) -> None:
        self._key = key or new_key()
        self._certificate = certificate or self._own_certificate()

    @property
    def pem(self) -> bytes:
        """The authority's certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def save(self, folder: Path) -> None:
        """Writes `ca.crt` and `ca.key`, so that a later process can issue more."""
        KeyPair(self.pem, key_pem(self._key)).write(folder, "ca")

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The authority that `save` wrote."""
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(key, x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()))

    def server(self, names: Sequence[str]) -> KeyPair:
        """A serving certificate for host names and IP addresses."""
        entries = [_general_name(name) for name in names]
        return self._issue([(NameOID.COMMON_NAME, names[0])], ExtendedKeyUsageOID.SERVER_AUTH, entries)

    def client(self, user: str, groups: Sequence[str] = ()) -> KeyPair:
        """A client certificate: Kubernetes reads the user from CN and the groups from O."""
        subject = [(NameOID.COMMON_NAME, user), *((NameOID.ORGANIZATION_NAME, group) for group in groups)]
        return self._issue(subject, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def _own_certificate(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spendmesh-test-ca")])
        builder = self._builder(name, name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(CA_KEY_USAGE, critical=True)
        return builder.sign(self._key, hashes.SHA256())

    def _issue(
        self,
        subject: Sequence[tuple[x509.ObjectIdentifier, str]],
        usage: x509.ObjectIdentifier,
        names: list[x509.GeneralName],
    ) -> KeyPair:
        key = new_key()
        name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
        builder = self._builder(name, self._certificate.subject, key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), key_pem(key))

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - ONE_DAY)
            .not_valid_after(now + 365 * ONE_DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def kubeconfig(server: str, authority: bytes, user: KeyPair | str) -> str:
    """A kubeconfig file for one user: a client certificate, or a bearer token. JSON, which every YAML reader takes."""
    credentials = (
        {"token": user}
        if isinstance(user, str)
        else {"client-certificate-data": _base64(user.certificate), "client-key-data": _base64(user.key)}
    )
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "test", "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}
            ],
            "users": [{"name": "test", "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        },
        indent=1,
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
