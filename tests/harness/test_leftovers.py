"""The guard of tests/conftest.py: a test that leaves something behind fails."""

from __future__ import annotations

import logging
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest

from tests.harness import leftovers
from tests.harness.leftovers import Held
from tests.harness.test_conftest import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ["pytester"]

ENDS: list[Callable[[], object]] = []
"""What ends the things that the inner tests leave behind."""

IMPORTS = """
import asyncio
import gc
import socket
import threading
import pytest
from confluent_kafka import Producer
from tests.harness.leftovers import lasting
from tests.harness.servers.nats import NatsServer
from tests.harness.test_leftovers import ENDS

def start_thread():
    end = threading.Event()
    threading.Thread(target=end.wait, name="the thread", daemon=True).start()
    ENDS.append(end.set)

class Cycle:
    def __init__(self, of):
        self.of, self.itself = of, self

class Owner:
    def __init__(self):
        self.client = Producer({"bootstrap.servers": "127.0.0.1:1"}, logger=Silent())

class Silent:
    def log(self, *_):
        pass
"""

LEFT = {
    "a thread": ("start_thread()", "thread the thread"),
    "a socket": (
        """
        listener = socket.create_server(("127.0.0.1", 0))
        ENDS.append(listener.close)
        """,
        "socket ('127.0.0.1', *)",
    ),
    "a connected socket": (
        """
        for end in socket.socketpair():
            ENDS.append(end.close)
        """,
        "socket * to *",
    ),
    "an event loop": ("ENDS.append(asyncio.new_event_loop().close)", "socket *"),
    "a server": (
        """
        server = NatsServer()
        ENDS.append(server.close)
        server.start()
        """,
        "server NatsServer(127.0.0.1:*)",
    ),
    "a client of librdkafka": (
        """
        owner = Owner()
        ENDS.append(vars(owner).clear)
        """,
        "thread rdk:main",
    ),
}

NOT_LEFT = {
    "ends in time": "threading.Timer(0.05, int).start()",
    "is lasting": """
        with lasting():
            start_thread()
        """,
    "is garbage": """
        gc.disable()
        Cycle(Owner())
        gc.enable()
        """,
    "is a thread of Litestar's logging": """
        from litestar import Litestar

        Litestar([]).get_logger()
        """,
}


@pytest.fixture(autouse=True)
def end_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait less, and end what the inner tests leave behind."""
    monkeypatch.setattr(leftovers, "_END_TIMEOUT", 0.5)
    yield
    while ENDS:
        ENDS.pop()()


def inner_test(body: str, line: str = "def test_inner():") -> str:
    """Return a module with one test."""
    return f"{IMPORTS}\n{line}\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


@pytest.mark.full
@pytest.mark.parametrize("what", LEFT)
def test_a_test_that_leaves_something_behind_fails(pytester: pytest.Pytester, what: str) -> None:
    body, line = LEFT[what]
    result = run(pytester, inner_test(body))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_inner*", "The test left this behind:", line])


@pytest.mark.parametrize("what", NOT_LEFT)
def test_a_test_may_leave_what(pytester: pytest.Pytester, what: str) -> None:
    run(pytester, inner_test(NOT_LEFT[what])).assert_outcomes(passed=1)


def test_a_failed_test_fails_once(pytester: pytest.Pytester) -> None:
    run(pytester, inner_test("start_thread()\nraise AssertionError")).assert_outcomes(failed=1)


@pytest.mark.parametrize("scope", ["function", "module"])
def test_a_pool_may_outlive_the_test_with_its_event_loop(pytester: pytest.Pytester, scope: str) -> None:
    line = f'@pytest.mark.asyncio(loop_scope="{scope}")\nasync def test_inner():'
    run(pytester, inner_test("await asyncio.to_thread(int)", line)).assert_outcomes(passed=1)


def test_what_has_ended_is_described_too() -> None:
    described = str(Held(threads=frozenset({2**31 - 1}), sockets=frozenset({0})))
    assert described == "thread that has just ended\nsocket that has just been closed"


def test_the_logging_of_an_application_ends_with_the_test() -> None:
    from litestar import Litestar

    before = (logging.root.level, list(logging.root.handlers))
    with leftovers.logging_restored():
        Litestar([])
        [handler] = logging.root.handlers
        assert handler not in before[1]
    assert (logging.root.level, logging.root.handlers) == before
    assert not any("_monitor" in thread.name for thread in threading.enumerate())
