"""
Messages between processes: late, lost, repeated, reordered, or not at all while a cable is cut.

A call that finds nobody, or whose answer is lost, ends as it does over TCP: at once with a broken connection, or with
silence until the caller's patience ends. A repetition may come much later (a proxy that tries again).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ledgersim.loop import ProcessLoop, Scheduler


class Broken(Exception):
    """The connection broke, or nobody answered in time; whether the other side acted is not known."""


@dataclass
class Weather:
    """Probabilities of one message, and its delays in seconds."""

    loss: float = 0.0
    repetition: float = 0.0
    late: float = 0.0
    latest_seconds: float = 8.0
    usual_seconds: float = 0.02


class Network:
    """All wires."""

    def __init__(self, scheduler: Scheduler, happened: Counter[str]) -> None:
        self.weather = Weather()
        self.apart: Counter[str] = Counter()
        """Names that are cut off, `a` or `a|b` for one wire between two; counted, since cuts overlap."""
        self._scheduler = scheduler
        self._happened = happened

    def cut(self, source: str, target: str) -> bool:
        """Whether no message passes."""
        apart = self.apart
        return bool(apart) and (
            apart[source] > 0 or apart[target] > 0 or apart[f"{source}|{target}"] > 0 or apart[f"{target}|{source}"] > 0
        )

    def send(self, source: str, target: str, deliver: Callable[[], None]) -> bool:
        """Put a message on its way. False: it is lost."""
        rng, weather = self._scheduler.rng, self.weather
        if self.cut(source, target):
            self._happened["message cut off"] += 1
            return False
        if weather.loss and rng.random() < weather.loss:
            self._happened["message lost"] += 1
            return False
        self._deliver(source, target, deliver, weather)
        if weather.repetition and rng.random() < weather.repetition:
            self._happened["message repeated"] += 1
            self._scheduler.after(rng.uniform(0, weather.latest_seconds), self._arrive, source, target, deliver)
        return True

    def _deliver(self, source: str, target: str, deliver: Callable[[], None], weather: Weather) -> None:
        rng = self._scheduler.rng
        seconds = rng.random() * weather.usual_seconds
        if weather.late and rng.random() < weather.late:
            self._happened["message late"] += 1
            seconds = rng.uniform(0, weather.latest_seconds)
        self._scheduler.after(seconds, self._arrive, source, target, deliver)

    def _arrive(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        if self.cut(source, target):
            self._happened["message cut off"] += 1
        else:
            deliver()

    async def call(
        self,
        caller: ProcessLoop,
        callee: ProcessLoop | None,
        serve: Callable[[], Awaitable[Any]],
        patience_seconds: float,
        where: str = "",
    ) -> Any:
        """Ask another process. Its exceptions that are answers come back; everything else is Broken."""
        answer = caller.create_future()
        if callee is None or callee.dead:
            self._scheduler.after(0.001, _refuse, caller, answer)
        else:
            asked = self.send(caller.name, callee.name, lambda: self._serve(caller, callee, serve, answer))
            if not asked and self._scheduler.rng.random() < 0.5:
                self._scheduler.after(0.05, _refuse, caller, answer)
        try:
            async with asyncio.timeout(patience_seconds):
                return await answer
        except TimeoutError as error:
            raise Broken(f"{where}: silence for {patience_seconds} s") from error

    def _serve(
        self, caller: ProcessLoop, callee: ProcessLoop, serve: Callable[[], Awaitable[Any]], answer: asyncio.Future[Any]
    ) -> None:
        if callee.dead:
            _refuse(caller, answer)
            return

        async def run() -> None:
            try:
                result, error = await serve(), None
            except Exception as raised:  # noqa: BLE001  # what a server raises is what its caller hears
                result, error = None, raised
            self.send(callee.name, caller.name, lambda: _settle(caller, answer, result, error))

        callee.create_task(run(), name="serve")


def _refuse(caller: ProcessLoop, answer: asyncio.Future[Any]) -> None:
    _settle(caller, answer, None, Broken("connection refused"))


def _settle(caller: ProcessLoop, answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    def settle() -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
            answer.exception()  # heard, also if the caller has gone
        else:
            answer.set_result(result)

    if not caller.dead:
        caller.call_soon(settle)
