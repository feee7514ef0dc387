"""Put the demo's processes up and take them down: a stand-in provider, a control process, one sidecar a team."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from spendmesh_cli.children import Child

PLACEHOLDER = "127.0.0.1:18080"
"""The stand-in's address in examples/demo; the real port is put in its place."""


SPEED = ("--ttft", "0.05", "--tokens-per-second", "400", "--chunk-tokens", "4")
"""A quick model's answer, so that ten minutes of traffic fit into one."""


@dataclass(slots=True)
class Scene:
    """All running processes of one demo."""

    folder: Path
    teams: Sequence[str]
    standin_url: str = ""
    sidecars: dict[str, str] = field(default_factory=dict)
    """Team to base URL of its sidecar's data listener."""
    admins: dict[str, str] = field(default_factory=dict)
    _children: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def state(self) -> Path:
        """Where the control process keeps its books."""
        return self.folder / "state"

    @property
    def books(self) -> Path:
        """The accounts as the control process leaves them at its end."""
        return self.folder / "books.json"

    @property
    def invoice(self) -> Path:
        """The stand-in's own invoice, one JSON line an attempt."""
        return self.folder / "invoice.jsonl"

    async def start(self, manifests: Path) -> None:
        """Start everything. Raises ChildFailed."""
        tokens = {team: secrets.token_urlsafe(24) for team in self.teams}
        keys = {team: secrets.token_urlsafe(24) for team in self.teams}
        accounts = [word for team in self.teams for word in ("--key", f"openai:{team}={keys[team]}")]
        standin = await self._start(
            "standin",
            "spendmesh_standin",
            [*accounts, "--provider", "backup=/backup", "--invoice", str(self.invoice), *SPEED],
        )
        self.standin_url = str((await standin.ready())["url"])
        self._write_manifests(manifests)
        tokens_file = self._private("tokens.json", json.dumps({tokens[team]: team for team in self.teams}))
        words = ("--tokens", str(tokens_file), "--books", str(self.books))
        control = await self._start(
            "control",
            "spendmesh_cli.control_process",
            ["--manifests", str(self.folder / "manifests"), "--state", str(self.state), *words],
        )
        control_url = str((await control.ready())["url"])
        for team in self.teams:
            await self._start_sidecar(team, control_url, tokens[team], keys[team])

    async def stop(self) -> None:
        """Stop in reverse order: sidecars give their rights back before the control process ends."""
        await self._children.aclose()

    async def set_faults(self, rules: Sequence[dict[str, object]]) -> None:
        """Replace the stand-in's fault plan."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.standin_url}/_standin/faults", json=list(rules)) as response,
        ):
            response.raise_for_status()

    async def status(self, session: aiohttp.ClientSession, team: str) -> dict[str, object]:
        """`/status` of a team's sidecar."""
        async with session.get(f"{self.admins[team]}/status") as response:
            decoded: dict[str, object] = await response.json()
            return decoded

    async def _start_sidecar(self, team: str, control_url: str, token: str, key: str) -> None:
        keys = self.folder / f"keys-{team}"
        keys.mkdir(mode=0o700)
        for provider in ("main", "backup"):
            self._private(f"keys-{team}/{provider}", key)
        child = await self._start(
            f"sidecar-{team}",
            "spendmesh_sidecar",
            [],
            {
                "SPENDMESH_CONTROL_URL": control_url,
                "SPENDMESH_TOKEN_FILE": str(self._private(f"token-{team}", token)),
                "SPENDMESH_KEYS_DIR": str(keys),
                "SPENDMESH_LISTEN": "127.0.0.1:0",
                "SPENDMESH_ADMIN_LISTEN": "127.0.0.1:0",
                "SPENDMESH_POD_NAMESPACE": team,
                "SPENDMESH_POD_NAME": f"{team}-demo",
            },
        )
        ready = await child.ready()
        self.sidecars[team] = f"http://{ready['listen']}"
        self.admins[team] = f"http://{ready['admin']}"

    async def _start(
        self, name: str, module: str, arguments: Sequence[str], environment: dict[str, str] | None = None
    ) -> Child:
        child = await Child.start(name, module, arguments, self.folder / f"{name}.log", environment)
        self._children.push_async_callback(child.stop)
        return child

    def _write_manifests(self, source: Path) -> None:
        folder = self.folder / "manifests"
        folder.mkdir()
        address = self.standin_url.removeprefix("http://")
        for path in sorted(source.glob("*.yaml")):
            text = path.read_text(encoding="utf-8").replace(PLACEHOLDER, address)
            (folder / path.name).write_text(text, encoding="utf-8")

    def _private(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return path
