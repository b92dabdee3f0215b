"""The hosts, one after the other, and what is run in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.orders import Orders
from tests.hosts import HOSTS
from tests.kits import KITS
from tests.servers.nats import NatsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts import Host


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*flags): collected for the hosts that have all of these flags")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    flags = [flag for marker in metafunc.definition.iter_markers("needs") for flag in marker.args]
    hosts = {name: host for name, host in HOSTS.items() if host.has(*flags)}
    if "kit" in metafunc.fixturenames:
        metafunc.parametrize(("kit", "host"), list(_grid(hosts)))
    else:
        metafunc.parametrize("host", hosts.values(), ids=hosts)


def _grid(hosts: dict[str, Host]) -> Iterator[Any]:
    """Yield each kind of broker in each host: one host of each kind, another one each time, in every run."""
    for number, (kind, kit) in enumerate(KITS.items()):
        for name, host in hosts.items():
            quick = name == list(hosts)[number % len(hosts)]
            yield pytest.param(kit, host, id=f"{kind}-{name}", marks=[] if quick else pytest.mark.full)


@pytest.fixture
def orders(shared_nats: NatsServer) -> Orders:
    """Return a broker on the server of this worker."""
    return Orders(shared_nats.url)


@pytest.fixture
def late_nats() -> Iterator[NatsServer]:
    """Return a server that has an address, but has not been started."""
    server = NatsServer()
    yield server
    server.close()
