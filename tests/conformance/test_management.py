"""The management server of each host: endpoints at an address that is not the host's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.hosts import TOKEN, StartupFailedError, serving
from tests.harness.management import answer, fetch

if TYPE_CHECKING:
    from tests.conformance.orders import Orders
    from tests.harness.hosts import Host


async def test_the_endpoints_are_at_the_address_and_the_docs_in_the_host(
    host: Host, orders: Orders, free_address: str
) -> None:
    app = host.build(
        orders.broker,
        host_app=orders.host_app,
        guarded=host.guards,
        management_bind=free_address,
        ping_path="/ping",
        liveness_path="/live",
        readiness_path="/ready",
        startup_path="/started",
        metrics_path="/metrics",
        status_path="/status",
        asyncapi_path="/asyncapi",
    )
    paths = ("/live", "/ready", "/started", "/metrics", "/status", "/status.json", "/ping")
    assert await fetch(free_address, "/ready") is None
    async with serving(app) as served:
        responses = {path: await fetch(free_address, path) for path in paths}
        assert [response and response.status_code for response in responses.values()] == [200] * 6 + [204]
        assert [await served.status(path, headers=TOKEN) for path in paths] == [404] * 7
        # The docs are at another address, which the page does not know.
        page = responses["/status"]
        assert page is not None
        assert "../metrics" in page.text
        assert "asyncapi" not in page.text
        assert await served.status("/asyncapi", headers=TOKEN) == 200
        assert await served.text("/hello") == "tea ordered"
        # Nothing of the host: no route, no page for a missing one, no header.
        for path in ("/", "/hello", "/asyncapi", "/ready/more"):
            missing = await fetch(free_address, path)
            assert missing is not None
            assert (missing.status_code, missing.text) == (404, "Not Found")
            assert set(missing.headers) == {"date", "content-length"}
    assert await fetch(free_address, "/ready") is None


async def test_the_same_application_listens_again_when_it_is_served_again(
    host: Host, orders: Orders, free_address: str
) -> None:
    app = host.build(
        orders.broker, host_app=orders.host_app, management_bind=free_address, readiness_path="/ready"
    )
    for _ in range(2):
        async with serving(app):
            assert await answer(free_address, "/ready") == "200 ok"
        assert await answer(free_address, "/ready") is None


async def test_an_address_in_use_fails_the_start_with_one_clear_error(
    host: Host, orders: Orders, free_address: str
) -> None:
    keywords: Any = {"management_bind": free_address, "readiness_path": "/ready"}
    first = host.build(orders.broker, host_app=orders.host_app, **keywords)
    second = host.build(type(orders.broker)(), host_app=orders.host_app, **keywords)
    async with serving(first) as served:
        with pytest.raises(StartupFailedError) as raised:
            async with serving(second):
                pytest.fail("It shares the address.")
        if host.reports_reason:
            reason = f"management_bind: Cannot listen on {free_address}: Address already in use."
            assert reason in str(raised.value)
            other = f"Another lifespan of this process listens at {free_address}, that of NatsBroker nats://"
            assert other in str(raised.value)
            assert "Give each lifespan an address of its own" in str(raised.value)
        # The first one still answers.
        assert await answer(free_address, "/ready") == "200 ok"
        assert await served.text("/hello") == "tea ordered"
