"""The stand-in as a process: says where it listens, ends when told, and loses no booked line when killed."""

from __future__ import annotations

import datetime
import ipaddress
import json
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from spendmesh_standin.__main__ import main

BODY = {"model": "small-1", "messages": [{"role": "user", "content": "[[in=100]][[out=20]]" + "x" * 100}]}


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "spendmesh_standin", "--key", "openai=sk-canary", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.kill()


def ask(ready: dict[str, Any]) -> int:
    request = urllib.request.Request(
        f"{ready['openai_base_url']}/chat/completions", json.dumps(BODY).encode(), {"authorization": "Bearer sk-canary"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_it_says_where_it_listens_and_ends_cleanly_when_told() -> None:
    with running() as (process, ready):
        assert ask(ready) == 200
        with urllib.request.urlopen(f"{ready['url']}/_standin/health", timeout=60) as answer:
            assert json.loads(answer.read()) == {"status": "ok", "in_flight": 0}
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None and process.stderr.read() == ""


def test_the_invoice_survives_a_kill_and_holds_no_key(tmp_path: Path) -> None:
    path = tmp_path / "invoice"
    for count in (1, 2):
        with running("--invoice", str(path)) as (process, ready):
            assert ask(ready) == 200
            process.kill()
            process.wait(60)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["cost_nanos"] for line in lines] == [13_000] * count
    assert "canary" not in path.read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plan.json", '[{"action": "status", "status": 503, "first": 1}]'),
        ("plan.yaml", "seed: 1\nrules:\n- {action: status, status: 503, first: 1}\n"),
    ],
)
def test_it_begins_with_the_faults_of_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with running("--faults", str(tmp_path / name)) as (_, ready):
        assert [ask(ready), ask(ready)] == [503, 200]


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert").write_bytes(made.public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(pem, *plain))
    return folder / "cert", folder / "key"


def test_it_serves_https_with_a_certificate(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with running("--tls-cert", str(cert), "--tls-key", str(key)) as (_, ready):
        assert ready["url"].startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(f"{ready['url']}/_standin/health", timeout=60, context=context) as answer:
            assert answer.status == 200


def test_a_second_one_on_the_same_port_says_why_it_cannot_start() -> None:
    with running() as (_, ready):
        command = [sys.executable, "-m", "spendmesh_standin", "--port", str(ready["port"])]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{ready['port']}" in second.stderr


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--key", "sk-canary"], "key: write openai=KEY"),
        (["--provider", "backup"], "must be NAME=PREFIX"),
        (["--provider", "backup=b"], "must begin with a slash"),
        (["--chunk-tokens", "0"], "chunk_tokens: 0"),
        (["--faults", "/nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_arguments_are_refused_by_name_without_showing_a_key(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert names in shown and "canary" not in shown


def test_it_needs_nothing_of_spendmesh_and_nothing_but_aiohttp() -> None:
    code = "import sys, spendmesh_standin.__main__; print(' '.join(sorted({m.split('.')[0] for m in sys.modules})))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    names = set(loaded.stdout.split())
    assert "aiohttp" in names and "spendmesh_standin" in names
    assert not names & {"spendmesh_operator", "spendmesh_sidecar", "spendmesh_cli", "pydantic", "msgspec", "openai"}
