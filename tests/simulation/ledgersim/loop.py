"""
Virtual time: one scheduler for the world, and an event loop of its own for each simulated process.

A process can be killed (nothing in it runs any more, not even `finally`), paused (it wakes up later and believes that
no time has passed) and has clocks of its own: a monotonic one with its own origin and rate, a wall clock that jumps.
Callbacks of one process run in the order in which they were scheduled, as in asyncio; timers come a seeded moment late.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any

MAX_STEPS = 400_000
"""A history takes some thousands; more means that somebody waits for nothing again and again."""
LATEST_TIMER_SECONDS = 0.0005
STEP_SECONDS = 0.00002
"""What running one callback takes: who polls must not stop the time that he waits for."""


class Stuck(AssertionError):
    """Time no longer moves: a process waits for nothing again and again."""


class _Handle:
    """A scheduled callback; asyncio only asks for `cancel`, `cancelled` and `when`."""

    __slots__ = ("_args", "_callback", "_context", "_dropped", "_when", "loop")

    def __init__(
        self,
        loop: ProcessLoop | None,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        when: float = 0.0,
    ) -> None:
        self.loop = loop
        self._callback, self._args, self._context, self._when = callback, args, context, when
        self._dropped = False

    def cancel(self) -> None:
        self._dropped = True

    def cancelled(self) -> bool:
        return self._dropped

    def when(self) -> float:
        return self._when

    def run(self) -> None:
        if self._context is None:
            self._callback(*self._args)
        else:
            self._context.run(self._callback, *self._args)


class Scheduler:
    """The world's time and everything that is due."""

    def __init__(self, rng: Random) -> None:
        self.now = 0.0
        """True seconds since the history began."""
        self.suspended = 0.0
        """Seconds of them in which nothing ran."""
        self.rng = rng
        self.steps = 0
        self._due: list[tuple[float, int, _Handle]] = []
        self._ready: deque[_Handle] = deque()
        self._count = 0

    def at(self, when: float, what: Callable[..., object], *args: Any) -> None:
        """Do something in the world (in no process) at a true time."""
        self._push(when, _Handle(None, what, args, None))

    def after(self, seconds: float, what: Callable[..., object], *args: Any) -> None:
        """Do something in the world later."""
        self.at(self.now + seconds, what, *args)

    def soon(self, handle: _Handle) -> None:
        """Run as soon as what runs now has ended."""
        self._ready.append(handle)

    def _push(self, when: float, handle: _Handle) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, handle))

    def timer(self, seconds: float, handle: _Handle) -> None:
        """A process's timer, late by a moment as all timers are."""
        self._push(self.now + max(0.0, seconds) + self.rng.random() * LATEST_TIMER_SECONDS, handle)

    def leap(self, seconds: float) -> None:
        """All machines were suspended: time went on, nothing ran."""
        self.now += seconds
        self.suspended += seconds

    def run(self, until: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Let the world go on to a true time, or until there is enough of it."""
        self._drain()
        while self._due and self._due[0][0] <= until and not enough():
            self.now = max(self.now, self._due[0][0])
            self._drain()
        if not enough():
            self.now = max(self.now, until)

    def _drain(self) -> None:
        ready, due = self._ready, self._due
        while True:
            while due and due[0][0] <= self.now:
                ready.append(heapq.heappop(due)[2])
            if not ready:
                return
            self._run(ready.popleft())
            self.now += STEP_SECONDS

    def _run(self, handle: _Handle) -> None:
        if handle.cancelled():
            return
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Stuck(f"{MAX_STEPS} steps, and it is {self.now:.3f} s")
        loop = handle.loop
        if loop is None:
            handle.run()
        elif loop.paused:
            loop.missed.append(handle)
        elif not loop.dead:
            events._set_running_loop(loop)
            try:
                handle.run()
            finally:
                events._set_running_loop(None)


class ProcessLoop(asyncio.AbstractEventLoop):
    """One process: what asyncio needs of a loop, and the process's clocks."""

    def __init__(self, scheduler: Scheduler, name: str, base_unix: float) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.missed: list[_Handle] = []
        self.failures: list[str] = []
        """What nobody in the process caught."""
        self.wall_skew = 0.0
        self.tasks: list[asyncio.Task[Any]] = []
        self._scheduler = scheduler
        self._base_unix = base_unix
        self._origin = scheduler.rng.uniform(0.0, 10_000.0)
        self._rate = scheduler.rng.uniform(0.999, 1.001)

    # --- clocks -------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self._origin + self._scheduler.now * self._rate

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._origin + self._scheduler.now * self._rate

    def unix(self) -> float:
        """What the wall clock shows."""
        return self._base_unix + self._scheduler.now + self.wall_skew

    def both(self) -> tuple[float, int]:
        """As the sidecar's clock."""
        return self.monotonic(), int(self.unix())

    def same_machine(self, other: ProcessLoop) -> None:
        """Have the clocks of a process on the same machine: they go on over a restart."""
        self._origin, self._rate, self.wall_skew = other._origin, other._rate, other.wall_skew

    # --- life ---------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Nothing of this process runs any more."""
        self.dead = True
        self.missed.clear()

    def pause(self) -> None:
        """A long stop, as of a virtual machine that is moved."""
        self.paused = True

    def resume(self) -> None:
        """All that came due meanwhile runs now."""
        self.paused = False
        missed, self.missed = self.missed, []
        for handle in missed:
            self._scheduler.soon(handle)

    def bury(self) -> None:
        """Let go of what still waits, so that the interpreter need not complain about it."""
        self.dead = True
        for task in self.tasks:
            if not task.done():
                coroutine = task.get_coro()
                try:
                    coroutine.close()
                except (RuntimeError, AssertionError):
                    pass  # a waiting `finally`: the process is gone, so nothing can be awaited
        self.tasks.clear()

    # --- what asyncio asks for ----------------------------------------------------------------------------

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self.dead

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a kill leaves tasks behind, as it should
        self.tasks.append(task)
        if len(self.tasks) > 64:
            self.tasks = [each for each in self.tasks if not each.done()]
        return task

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        handle = _Handle(self, callback, args, context)
        self._scheduler.soon(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        handle = _Handle(self, callback, args, context, when)
        self._scheduler.timer((when - self.time()) / self._rate, handle)
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self.failures.append(f"{self.name}: {context.get('message')}: {context.get('exception')!r}")
