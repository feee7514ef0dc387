"""`spendmesh demo`: play the story, show it live, check the sums; the exit status says if they held."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from rich.console import Console

from spendmesh_cli.children import ChildFailed
from spendmesh_cli.demo.scene import Scene
from spendmesh_cli.demo.screen import Screen
from spendmesh_cli.demo.story import Chapter, chapters
from spendmesh_cli.demo.sums import TeamSums, checks, without_policy_nanos
from spendmesh_cli.demo.traffic import Traffic, read_trace
from spendmesh_cli.resources import examples

TEAMS = ("team-a", "team-b")
REFRESH_SECONDS = 0.5


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("demo", help="the whole story on this machine: no cluster, no keys")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the replay (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which team and task each request gets (%(default)s)")
    parser.add_argument("--hold", action="store_true", help="keep everything up at the end and print a curl to try")
    parser.set_defaults(run=lambda options: asyncio.run(_demo(options)))


async def _demo(options: argparse.Namespace) -> int:
    console = Console(soft_wrap=True)
    manifests = examples() / "demo"
    trace = next((manifests / "trace").glob("*.csv"))
    calls = read_trace(trace, TEAMS, Random(options.seed))  # noqa: S311 - a replay, not a secret
    speed = calls[-1].at_seconds / options.seconds
    console.print(
        f"{len(calls)} requests of the Azure LLM inference trace 2023 (10 minutes of it, {speed:.0f} times faster), "
        f"seed {options.seed}: their arrivals and token counts are real, provider and prices are stand-ins.",
        highlight=False,
    )
    with tempfile.TemporaryDirectory(prefix="spendmesh-demo-") as folder:
        scene = Scene(Path(folder), TEAMS)
        try:
            await scene.start(manifests)
            traffic = Traffic(scene.sidecars, calls, speed)
            await _play(scene, traffic, options.seconds, console)
            if options.hold:
                await _hold(scene, console)
        except ChildFailed as error:
            console.print(str(error), highlight=False, markup=False)
            return 2
        finally:
            await scene.stop()
        sums = _sums(scene)
        verdict = checks(sums, traffic.tallies, *TEAMS)
        Screen(console, options.seconds).verdict(
            verdict,
            sum(s.ledger for s in sums.values()),
            sum(map(without_policy_nanos, traffic.tallies.values())),
        )
        return 0 if all(check.held for check in verdict) else 1


async def _play(scene: Scene, traffic: Traffic, seconds: float, console: Console) -> None:
    clock = time.monotonic  # noqa: TID251 - the demo plays in real time
    began = clock()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        replay = asyncio.create_task(traffic.run(session, clock))
        statuses: dict[str, dict[str, object]] = {}
        shown: Chapter | None = None
        with Screen(console, seconds) as screen:
            while not replay.done():
                elapsed = clock() - began
                chapter = _chapter(elapsed / seconds)
                if chapter is not shown:
                    await scene.set_faults(chapter.faults)
                    shown = chapter
                for team in TEAMS:
                    statuses[team] = await scene.status(session, team)
                screen.show(elapsed, chapter.title, traffic.tallies, statuses)
                await asyncio.wait([replay], timeout=REFRESH_SECONDS)
        await replay


def _chapter(share: float) -> Chapter:
    return [chapter for chapter in chapters() if chapter.begin <= share][-1]


async def _hold(scene: Scene, console: Console) -> None:
    url = scene.sidecars[TEAMS[1]]
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Hello [[out=20]]"}]})
    console.print(
        f"\nStill up. Try, in another terminal:\n\n  curl -si {url}/openai/v1/chat/completions "
        f"-H 'content-type: application/json' -H 'x-spendmesh-task: extract' -d '{body}'\n\n"
        f"  curl -s {scene.admins[TEAMS[1]]}/status\n\n"
        f"  spendmesh report --state {scene.state}\n\nCtrl-C ends it.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        console.print("ending")


def _sums(scene: Scene) -> dict[str, TeamSums]:
    """Books and invoice, both from their own files, after every process has ended."""
    books = json.loads(scene.books.read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in scene.invoice.read_text(encoding="utf-8").splitlines()]
    return {
        team: TeamSums(
            limit=_account(books, team)["amount"],
            ledger=_account(books, team)["charged"],
            invoice=sum(line["cost_nanos"] for line in lines if line["account"] == team),
        )
        for team in scene.teams
    }


def _account(books: Sequence[dict[str, Any]], team: str) -> dict[str, Any]:
    return next(account for account in books if account["budget"] == f"{team}/team")
