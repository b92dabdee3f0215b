"""The driver that is chosen for a broker."""

from __future__ import annotations

import sys

from faststream.nats import NatsBroker

from faststream_adapters._brokers.registry import driver_for
from faststream_adapters.drivers import Driver
from tests.harness.brokers import ALL_HARNESSES, HARNESSES


def test_each_client_has_a_driver_with_its_name() -> None:
    for name, harness in HARNESSES.items():
        driver = driver_for(harness.broker(harness.unreachable_url()))
        assert type(driver).__module__.split(".")[:3] == ["faststream_adapters", "_brokers", name]


def test_a_driver_of_another_package_is_found_by_its_entry_point() -> None:
    broker = ALL_HARNESSES["acme"].broker("nats://localhost")
    driver = driver_for(broker)
    assert type(driver) is sys.modules["acme_messaging.driver"].AcmeDriver
    assert isinstance(driver, Driver)
    assert driver.broker is broker


def test_a_subclass_has_the_driver_of_its_nearest_base_class() -> None:
    class AcmeSubclass(type(ALL_HARNESSES["acme"].broker("nats://localhost"))):  # type: ignore[misc]  # a class made at run time
        pass

    class NatsSubclass(NatsBroker):
        pass

    assert type(driver_for(AcmeSubclass("nats://localhost"))).__name__ == "AcmeDriver"
    assert type(driver_for(NatsSubclass())).__name__ == "NatsDriver"
