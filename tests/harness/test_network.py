"""The network can be forbidden, and is forbidden in the unit tests."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.network import NetworkForbiddenError, forbidden
from tests.harness.servers import HOST
from tests.harness.servers.nats import NatsServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest_plugins = ["pytester"]


def bind() -> None:
    with socket.socket() as server:
        server.bind((HOST, 0))


def connect(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as client:
        client.connect((host, 9))


def send_datagram() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", (HOST, 9))


REFUSED: dict[str, Callable[[], Any]] = {
    "a port": bind,
    "a connection": lambda: connect(socket.AF_INET, HOST),
    "a connection over IPv6": lambda: connect(socket.AF_INET6, "::1"),
    "a connection of asyncio": lambda: asyncio.run(asyncio.wait_for(asyncio.open_connection(HOST, 9), 5)),
    "a name": lambda: socket.getaddrinfo("localhost", 9),
    "a datagram": send_datagram,
    "a server of the harness": NatsServer,
}


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_the_network_is_refused_even_if_the_error_is_caught(use: Callable[[], Any]) -> None:
    with pytest.raises(NetworkForbiddenError, match=r"^socket\."), forbidden():
        use()
    with pytest.raises(NetworkForbiddenError, match=r"^socket\."), forbidden(), suppress(Exception):
        use()


def test_pipes_processes_and_unix_sockets_are_allowed(tmp_path: Path) -> None:
    with forbidden():
        asyncio.run(asyncio.sleep(0))
        subprocess.run([sys.executable, "-c", "import socket"], check=True)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(tmp_path / "socket"))


def test_the_network_is_allowed_afterwards() -> None:
    with forbidden():
        pass
    socket.create_server((HOST, 0)).close()


MODULE = """
import pytest
from tests.harness.servers import hold_port

@pytest.fixture(scope="session")
def server():
    return hold_port()

def test_uses_a_fixture(server): ...

def test_uses_the_network():
    hold_port()

def test_uses_neither(): ...
"""


def test_the_network_is_forbidden_in_unit_tests(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from tests.unit.conftest import *")
    pytester.makepyfile(MODULE)
    options = "-p", "no:xdist", "-p", "no:faker", "-o", "asyncio_default_fixture_loop_scope=function"
    result = pytester.runpytest_inprocess(*options)
    result.assert_outcomes(errors=1, failed=1, passed=1)
    result.stdout.fnmatch_lines(["*NetworkForbiddenError: socket.bind ('127.0.0.1', 0)"])
