"""Fixtures and the parametrization of the suite by hosts and brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.orders import Orders
from tests.harness.brokers import ALL_HARNESSES
from tests.harness.hosts import HOSTS
from tests.harness.servers.nats import NatsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.hosts import Host


_WRAPPED = [name for name, host in HOSTS.items() if not host.has_adapter]
MOST_HOSTS = HOSTS.keys() - set(_WRAPPED[1:])
"""The hosts in which the other tests run each time: of those that the middleware wraps, only one."""

FEW_HOSTS = {"fastapi", "quart"}
"""The hosts in which a test that takes long runs each time: one merges lifespans, and one is wrapped."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*flags): collected for the hosts that have all of these flags")
    config.addinivalue_line("markers", "slow_start: most hosts run in the full suite only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    flags = [flag for marker in metafunc.definition.iter_markers("needs") for flag in marker.args]
    hosts = {name: host for name, host in HOSTS.items() if host.has(*flags)}
    if "harness" in metafunc.fixturenames:
        metafunc.parametrize(("harness", "host"), list(_grid(hosts)))
    elif "host" in metafunc.fixturenames:
        slow = metafunc.definition.get_closest_marker("slow_start") is not None
        each_time = FEW_HOSTS if slow else MOST_HOSTS
        metafunc.parametrize(
            "host",
            [
                pytest.param(host, id=name, marks=[] if name in each_time else pytest.mark.full)
                for name, host in hosts.items()
            ],
        )


def _grid(hosts: dict[str, Host]) -> Iterator[Any]:
    """Yield each kind of broker in each host. Each run tests each kind in one host, a different one for each.

    A kind whose server starts slowly runs in the full suite only.
    """
    for number, (kind, harness) in enumerate(ALL_HARNESSES.items()):
        for name, host in hosts.items():
            quick = name == list(hosts)[number % len(hosts)] and not harness.starts_slowly
            yield pytest.param(harness, host, id=f"{kind}-{name}", marks=[] if quick else pytest.mark.full)


@pytest.fixture
def orders(shared_nats: NatsServer) -> Orders:
    """Return a service on the shared server."""
    return Orders(shared_nats.url)


@pytest.fixture
def late_nats() -> Iterator[NatsServer]:
    """Return a server that has a port but has not been started."""
    server = NatsServer()
    yield server
    server.close()
