"""Fixtures for all tests, and two rules: nothing is skipped in secret, no task is left behind."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import nats as nats_py
import pytest

from tests.servers.nats import NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

NO_SKIP = os.environ.get("FASTSTREAM_ADAPTERS_NO_SKIP") == "1"
NATS_PY = Path(nats_py.__file__).parent

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


class NatsFactory:
    """Starts servers that end with the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def __call__(
        self,
        *,
        jetstream: bool = False,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        config: str = "",
    ) -> NatsServer:
        """Return a started server with these options of NatsServer."""
        server = NatsServer(jetstream=jetstream, user=user, password=password, token=token, config=config)
        return self._stack.enter_context(server)


@pytest.fixture
def nats_factory() -> Iterator[NatsFactory]:
    """Return what starts servers: several, or with options."""
    with ExitStack() as stack:
        yield NatsFactory(stack)


@pytest.fixture
def nats(nats_factory: NatsFactory) -> NatsServer:
    """Return a fresh server, which the test may kill or freeze."""
    return nats_factory()


@pytest.fixture
def nats_js(nats_factory: NatsFactory) -> NatsServer:
    """Return a fresh server with JetStream."""
    return nats_factory(jetstream=True)


@pytest.fixture(scope="session")
def shared_nats() -> Iterator[NatsServer]:
    """Return the server of this worker, for tests that do it no harm and use subjects of their own."""
    with NatsServer() as server:
        yield server


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest) -> None:
    """Fail an async test that leaves asyncio tasks behind."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    left = {task for task in left if not _is_of_nats_py(task)}
    if left:  # what has been told to end may take a moment
        _, left = await asyncio.wait(left, timeout=1.0)
    if left:
        pytest.fail("The test left tasks behind:\n" + "\n".join(map(repr, left)), pytrace=False)


def _is_of_nats_py(task: asyncio.Task[Any]) -> bool:
    # nats-py leaks a task when close() meets a broken pipe.
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and Path(code.co_filename).is_relative_to(NATS_PY)


def pytest_configure() -> None:
    """Give child processes a Ctrl-C that works: a shell's background job ignores it, and hands that on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test into a failure when nothing may be skipped."""
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a module into an error when nothing may be skipped."""
    return _refuse_skip((yield))


def _refuse_skip(report: Report) -> Report:
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = (
            f"FASTSTREAM_ADAPTERS_NO_SKIP=1 forbids this skip: {reason.removeprefix('Skipped: ')}"
        )
    return report
