"""
kopf as an informer: everything the index holds is what the API server holds, a moment later.

Only `on.event`, so nothing is written: no finalizer, no annotation, no Event on anybody's object (kopf's other
handlers keep their state there). kopf's own index can only be read in its handlers, and `run` has no kopf: the one
index is ours. kopf runs in a thread with a loop of its own, because it cancels what it finds in its loop when it ends.

A watch that was interrupted does not tell what was deleted meanwhile. So each kind is listed again now and then, and
first of all: after the first list the index is complete (`synced`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import kopf
from kopf._core.engines.peering import Identity

from spendmesh_operator.index import KINDS, Index
from spendmesh_operator.injection.names import LABEL_INJECTED
from spendmesh_operator.kube import paths
from spendmesh_operator.kube.client import Kube, KubeError, NotFound
from spendmesh_operator.kube.kopf_sessions import KopfSessions

Json = dict[str, Any]

RESYNC_SECONDS: Final = 300.0
"""client-go's watches find deletions when they list again, kopf's do not; so this is far below its ten hours."""
FIRST_RESYNC_SECONDS: Final = 5.0
"""Once more soon: what was deleted between our first list and kopf's."""
RETRY_SECONDS: Final = 2.0
STOP_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watched:
    """A kind that the index needs."""

    kind: str
    group_version: str
    plural: str
    label_selector: str = ""

    @property
    def selector(self) -> tuple[str, str, str]:
        """Group, version and plural, as kopf takes them."""
        _, _, rest = self.group_version.partition("/")
        group, _, version = rest.rpartition("/")
        return group, version, self.plural


WATCHED_OBJECTS: Final = tuple(Watched(kind, paths.SPENDMESH, paths.PLURALS[kind]) for kind in KINDS)
"""What people write."""
WATCHED: Final = (
    *WATCHED_OBJECTS,
    Watched("Pod", paths.CORE, "pods", f"{LABEL_INJECTED}=true"),
    Watched("ReplicaSet", paths.APPS, "replicasets"),
    Watched("Job", paths.BATCH, "jobs"),
)
NAMESPACE: Final = Watched("Namespace", paths.CORE, "namespaces")


class InformerStopped(RuntimeError):
    """kopf ended though nobody asked it to: start the process anew."""


class Informer:
    """Feeds one index on one event loop. `run` until cancelled."""

    def __init__(
        self,
        kube: Kube,
        index: Index,
        *,
        namespace: str = "",
        on_change: Callable[[], None],
        rng: random.Random,
    ) -> None:
        """`namespace` empty: the cluster. `on_change` is called on the loop that `run` is awaited on."""
        self._kube = kube
        self._index = index
        self._namespace = namespace
        self._on_change = on_change
        self._rng = rng
        # A Role cannot allow to watch namespaces, only to read its own; then the resync does that.
        self._watched = WATCHED if namespace else (*WATCHED, NAMESPACE)
        self._known: dict[str, set[tuple[str, str]]] = {watched.kind: set() for watched in (*WATCHED, NAMESPACE)}
        self._touched: dict[str, list[set[tuple[str, str]]]] = {watched.kind: [] for watched in (*WATCHED, NAMESPACE)}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Watch for ever. Raises InformerStopped."""
        await self._first_sync()
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        operator = loop.create_future()
        thread = threading.Thread(target=self._thread, args=(loop, operator, stop), name="kopf", daemon=True)
        thread.start()
        try:
            pause = FIRST_RESYNC_SECONDS
            while not operator.done():
                await asyncio.wait([operator], timeout=pause)
                if not operator.done():
                    await self._resync_all()
                    pause = RESYNC_SECONDS * self._rng.uniform(0.8, 1.2)
            cause = operator.exception()
            raise InformerStopped("the watch on the API server ended") from cause
        finally:
            stop.set()
            await asyncio.wait([operator], timeout=STOP_SECONDS)

    # --- lists ------------------------------------------------------------------------------------------

    async def _first_sync(self) -> None:
        while not await self._resync_all():  # noqa: ASYNC110  nobody signals that an API server has come back
            await asyncio.sleep(RETRY_SECONDS)
        self.synced.set()
        self._on_change()

    async def _resync_all(self) -> bool:
        """List every kind; False if one could not be listed (its old state stays)."""
        complete = True
        for watched in self._watched:
            try:
                await self._resync(watched)
            except NotFound:
                log.error("kind %s is not installed: apply the CRDs of the chart", watched.kind)
                complete = False
            except KubeError as error:
                log.error("%s could not be listed: %s", watched.plural, error)
                complete = False
        if self._namespace:
            complete = await self._read_own_namespace() and complete
        return complete

    async def _resync(self, watched: Watched) -> None:
        with self._noting_events(watched.kind) as touched:
            path = paths.collection(watched.group_version, watched.plural, self._namespace)
            raws, _ = await self._kube.list(path, watched.label_selector)
        listed = {_where(raw): raw for raw in raws}
        changed = [self._take(watched.kind, raw) for where, raw in listed.items() if where not in touched]
        gone = self._known[watched.kind] - set(listed) - touched
        changed.extend(self._forget(watched.kind, where) for where in gone)
        if any(changed) and self.synced.is_set():
            self._on_change()

    async def read_now(self, namespaces: Collection[str]) -> None:
        """
        Take in what these namespaces hold of our kinds now: a watch tells it a moment later. Raises KubeError.

        Deletions are left to the watch: what is gone a moment too late harms nobody.
        """
        seen = [name for name in namespaces if name and self._namespace in ("", name)]
        async with asyncio.TaskGroup() as tasks:
            for name in seen:
                tasks.create_task(self._read_namespace(name))
                for watched in WATCHED_OBJECTS:
                    tasks.create_task(self._read_objects(watched, name))

    async def _read_objects(self, watched: Watched, namespace: str) -> None:
        with self._noting_events(watched.kind) as touched:
            raws, _ = await self._kube.list(paths.collection(watched.group_version, watched.plural, namespace))
        changed = [self._take(watched.kind, raw) for raw in raws if _where(raw) not in touched]
        if any(changed):
            self._on_change()

    async def _read_namespace(self, name: str) -> None:
        with self._noting_events("Namespace") as touched:
            raw = await self._kube.get(paths.item(paths.CORE, "namespaces", "", name))
        if _where(raw) not in touched and self._take("Namespace", raw):
            self._on_change()

    @contextlib.contextmanager
    def _noting_events(self, kind: str) -> Iterator[set[tuple[str, str]]]:
        """What events say while we list is newer than the list; what they said before is in it."""
        touched: set[tuple[str, str]] = set()
        self._touched[kind].append(touched)
        try:
            yield touched
        finally:
            self._touched[kind] = [noting for noting in self._touched[kind] if noting is not touched]

    async def _read_own_namespace(self) -> bool:
        try:
            await self._read_namespace(self._namespace)
        except KubeError as error:
            log.error("the namespace could not be read: %s", error)
            return False
        return True

    def _take(self, kind: str, raw: Json) -> bool:
        self._known[kind].add(_where(raw))
        return self._index.add({**raw, "kind": kind})

    def _forget(self, kind: str, where: tuple[str, str]) -> bool:
        self._known[kind].discard(where)
        return self._index.remove(kind, *where)

    # --- events -----------------------------------------------------------------------------------------

    def _seen(self, kind: str, event_type: str | None, raw: Json) -> None:
        where = _where(raw)
        for touched in self._touched[kind]:
            touched.add(where)
        changed = self._forget(kind, where) if event_type == "DELETED" else self._take(kind, raw)
        if changed:
            self._on_change()

    def _thread(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None], stop: threading.Event) -> None:
        outcome: BaseException | None = None
        try:
            asyncio.run(self._operator(loop, stop))
        except BaseException as error:  # noqa: BLE001  handed to the loop that waits for it
            outcome = error

        def tell() -> None:
            if done.done():
                return
            if outcome is None:
                done.set_result(None)
            else:
                done.set_exception(outcome)

        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:
            log.debug("the loop was closed before kopf had ended")

    async def _operator(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        registry = kopf.OperatorRegistry()
        sessions = KopfSessions()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            """As the client does, so that both are the same user; asked again when a token has expired."""
            asked = asyncio.run_coroutine_threadsafe(self._kube.login(), loop)
            return sessions.open(await asyncio.wrap_future(asked))

        for watched in self._watched:
            self._register(registry, watched, loop)
        try:
            await kopf.operator(
                registry=registry,
                settings=_settings(self._watched),
                identity=Identity(
                    "spendmesh"
                ),  # unused (no peering); kopf's own asks for a user's name, a pod has none
                standalone=True,
                clusterwide=not self._namespace,
                namespaces=[self._namespace] if self._namespace else [],
                stop_flag=stop,
            )
        finally:
            await sessions.closed()

    def _register(self, registry: kopf.OperatorRegistry, watched: Watched, loop: asyncio.AbstractEventLoop) -> None:
        @kopf.on.event(*watched.selector, registry=registry, id=f"see-{watched.plural}")
        async def see(event: Any, **_: Any) -> None:
            """Hand the object over; whatever it means is decided on the other loop."""
            raw = dict(event["object"])
            raw["metadata"] = {k: v for k, v in raw["metadata"].items() if k != "managedFields"}
            loop.call_soon_threadsafe(self._seen, watched.kind, event["type"], raw)


def _where(raw: Json) -> tuple[str, str]:
    metadata = raw["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _settings(watched: Iterable[Watched]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None  # it would kill the whole process
    settings.watching.server_timeout = 600
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = [0.5, 1, 2, 5, 10, 20]
    settings.scanning.disabled = True  # the chart installs the CRDs first; no right to watch CRDs is needed
    settings.execution.max_workers = 1  # all handlers are coroutines
    for one in watched:
        if one.label_selector:
            settings.watching.label_selectors[one.selector] = one.label_selector
    return settings
