"""`make bench` and `bench/compare.py` run and print their tables: in their smallest size, on what `make test` has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

import compare
import contestants
import load
import run
from sink import Sink, sink

SMALLEST = run.Sizes(closed_calls=20, open_calls=5, streams=1)
ROUNDS = 1


@pytest.fixture(scope="module")
def collector() -> Iterator[Sink]:
    with sink() as running:
        yield running


@pytest.fixture(scope="module")
def provider() -> Iterator[int]:
    with contestants.upstream() as port:
        yield port


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sidecar's, with its policy."""
    return tmp_path_factory.mktemp("sidecar")


@pytest.fixture(scope="module")
def sidecar(collector: Sink, provider: int, folder: Path) -> Iterator[contestants.Contestant]:
    with contestants.spendmesh(provider, folder, collector.url) as running:
        contestants.warm(running, 20)
        yield running


def rows(printed: str) -> list[str]:
    return [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")]


def test_the_comparison_with_others_prints_a_row_for_each_and_its_goals(
    provider: int,
    collector: Sink,
    sidecar: contestants.Contestant,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The plain proxy also stands in for Envoy, which tests have no program of."""
    with contestants.plain_proxy(provider) as plain:
        direct = contestants.Contestant("direct", provider, "/v1/chat/completions")
        field = [direct, dataclasses.replace(plain, name="envoy"), plain, sidecar]
        figures = {one.name: run.Figures() for one in field}
        for one in field:
            run.measure(one, figures[one.name], SMALLEST)
        enforced = [run.apply_to_enforced(folder, provider, "2000000")]
        run.report(field, figures, enforced, ROUNDS, collector.spans)
        run.goals(sidecar, figures, enforced)
    found = rows(capsys.readouterr().out)
    assert [name for name in found if name in figures] == ["direct", "envoy", "plain aiohttp", "spendmesh"]
    assert sum("≤" in name for name in found) == 6


def test_the_comparison_of_trees_prints_a_row_for_each(
    sidecar: contestants.Contestant, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each tree beside the first one."""
    other = dataclasses.replace(sidecar, name="after")
    compare.measure([sidecar, other], ROUNDS, SMALLEST.closed_calls, SMALLEST.streams)
    assert rows(capsys.readouterr().out)[1:] == ["spendmesh", "after"]


def test_a_request_of_the_load_is_one_that_the_official_client_writes() -> None:
    """Length and body agree, so that one call is one call."""
    head, _, body = load.request_bytes("/v1/chat/completions", stream=True).partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head and body.endswith(b'"stream":true}')
