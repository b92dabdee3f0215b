"""Tasks that are found by the method that they run."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

from faststream_adapters._compat.tasks import tasks_in


class Nameless(Coroutine[Any, Any, None]):
    """A coroutine without a name, like those of aiormq."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, None]:
        raise NotImplementedError

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Worker:
    def __init__(self) -> None:
        self.finished = asyncio.Event()

    async def work(self) -> None:
        await self.finished.wait()


async def test_tasks_are_found_by_the_method_that_they_run() -> None:
    worker = Worker()
    task = asyncio.create_task(worker.work())
    other = asyncio.create_task(Nameless(worker.work()))
    assert list(tasks_in("Worker.work")) == [(task, worker)]
    assert list(tasks_in("Worker.finished")) == []
    worker.finished.set()
    await asyncio.wait((task, other))
