"""Find the driver for a broker among the built-in drivers and the entry points of other packages."""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import cast

from faststream_adapters._compat.faststream import Broker
from faststream_adapters._utils.secrets import protect

from .driver import Driver

GROUP = "faststream_adapters.drivers"
"""The entry point group of drivers.

The name of an entry point is the module that defines the broker's class, or a package that contains this
module. Its value is the driver's class.
"""


def driver_for(broker: Broker) -> Driver:
    """Return a driver for a broker: that of its class, or of the nearest base class that has one.

    From then on the broker's credentials are removed from logs and errors.
    """
    driver_class = next(filter(None, (_driver_class(cls.__module__) for cls in type(broker).__mro__)), Driver)
    driver = driver_class(broker)
    protect(broker, driver.settings)
    return driver


@cache
def _driver_class(module: str) -> type[Driver] | None:
    for entry_point in _entry_points():
        if module == entry_point.name or module.startswith(f"{entry_point.name}."):
            return cast("type[Driver]", entry_point.load())
    package, _, rest = module.partition(".")
    client = rest.partition(".")[0]
    # A built-in driver has the name of the FastStream package: `faststream.nats` and `_brokers.nats`.
    if package == "faststream" and client and find_spec(f"{__package__}.{client}"):
        builtin: type[Driver] | None = getattr(import_module(f"{__package__}.{client}"), "driver_class", None)
        return builtin
    return None


@cache
def _entry_points() -> list[EntryPoint]:
    """Return the entry points, the most specific first: those with the longest names."""
    return sorted(entry_points(group=GROUP), key=lambda each: -len(each.name))
