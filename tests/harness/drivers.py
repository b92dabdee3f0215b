"""Start a driver without a lifespan."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faststream_adapters._brokers.driver import Driver


async def start(driver: Driver, *, consume: bool, supervise: bool) -> None:
    """Start the broker of a driver with the steps of a lifespan."""
    await driver.connect(consume=consume, supervise=supervise)
    await driver.declare()
    if consume:
        await driver.start_subscribers()
