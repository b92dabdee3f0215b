"""Fixtures for all tests, and two rules: nothing is skipped in secret, nothing is left behind."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.harness import leftovers
from tests.harness.event_loops import EVENT_LOOPS, EventLoopPlugin
from tests.harness.leftovers import Held
from tests.harness.management import reserved_address
from tests.harness.servers.nats import NatsFactory, NatsServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

NO_SKIP = os.environ.get("FASTSTREAM_ADAPTERS_NO_SKIP") == "1"

_HELD = pytest.StashKey[Held | None]()
"""What was held before the test; None when it has failed."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


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


@pytest.fixture
def free_address() -> Iterator[str]:
    """Return a TCP address that is free and reserved for the test."""
    with reserved_address() as address:
        yield address


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Undo what the application of a test does to the logging of the process."""
    with leftovers.logging_restored():
        yield


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> None:
    """Fail a test that leaves a task, a thread, a socket, a server or an active client behind.

    Fixtures with a wider scope start before this one, so the test may leave what they hold.
    """
    request.node.stash[_HELD] = Held.now()
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    if left := await leftovers.tasks_since(before):
        pytest.fail("The test left tasks behind:\n" + "\n".join(map(repr, left)), pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Look for what is left when the fixtures have ended, and with them the event loop of the test."""
    yield
    if (before := item.stash.get(_HELD, None)) is None:
        return
    marker = item.get_closest_marker("asyncio")
    loop_lasts = marker is not None and marker.kwargs.get("loop_scope", "function") != "function"
    if left := leftovers.left_since(before, loop_lasts=loop_lasts):
        pytest.fail(f"The test left this behind:\n{left}", pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that selects the event loop."""
    parser.addoption(
        "--event-loop", choices=list(EVENT_LOOPS), help="run the tests and uvicorn in another event loop"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Select the event loop, and give child processes a Ctrl-C that works."""
    # A shell's background job ignores it, and hands that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if name := config.getoption("event_loop"):  # pragma: no cover (`make test-loops`)
        config.pluginmanager.register(EventLoopPlugin(name))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the name of a test that runs again to the file that `FASTSTREAM_ADAPTERS_RERUNS` names."""
    path = os.environ.get("FASTSTREAM_ADAPTERS_RERUNS")
    # A report of a pytest-xdist worker arrives here a second time, in the process that started the worker.
    if str(report.outcome) == "rerun" and path and "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(path).open("a", encoding="utf-8") as reruns:
            reruns.write(f"{report.nodeid}\n")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test into a failure when nothing may be skipped."""
    report = _refuse_skip((yield))
    if report.failed:
        # The traceback of the failure keeps what the test has used.
        item.stash[_HELD] = None
    return report


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
