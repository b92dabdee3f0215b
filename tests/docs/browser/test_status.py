"""The status page in a real browser: content, policy, appearance, accessibility and hostile names."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import pytest
from faststream.nats import NatsBroker
from faststream.redis import RedisBroker
from playwright.async_api import expect

from faststream_adapters import AsgiFastStream, BrokerLifespan, HealthCheck
from tests.docs.browser.browsing import CHROMIUM, NO_CHROMIUM, visit
from tests.docs.browser.service import HOSTILE
from tests.harness.management import reserved_address
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from tests.docs.browser.browsing import Visit
    from tests.harness.servers.nats import NatsServer

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    # All tests share one browser.
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

PATIENCE = 30_000.0
"""Milliseconds that the page may take on a busy machine."""
SUBSCRIBERS = 60
CAPTIONS = [
    "3 in all, 2 with a warning, 1 reply",
    "2 in all, 1 faulty, 1 pass",
    f"{SUBSCRIBERS} in all, {SUBSCRIBERS - 3} consume, 3 not started, stopped or paused",
    "The latest first.",
]


async def handle(message: str) -> None: ...


def _seen(lifespan: BrokerLifespan) -> Counter[str]:
    """Return how many components have changed to each code."""
    seen: Counter[str] = Counter()
    for change in lifespan.status.history:
        seen[change.new] += change.count
    return seen


@asynccontextmanager
async def service(url: str) -> AsyncIterator[str]:
    """Run a service with three brokers, two of which are lost, and return the URL of its page."""
    running = NatsBroker(url, logger=None)
    lost = NatsBroker("nats://127.0.0.1:1", logger=None)
    refusing = RedisBroker("redis://127.0.0.1:1")
    for number in range(SUBSCRIBERS - 2):
        running.subscriber(f"orders.eu.{number}.created", "order-service-with-a-rather-long-name")(handle)
    paused = running.subscribers[0]
    lost.subscriber(HOSTILE.field)(handle)
    refusing.subscriber("invoices")(handle)
    with reserved_address() as address:
        app = AsgiFastStream(
            running,
            lost,
            refusing,
            logger=None,
            optional=[lost, refusing],
            checks=[HealthCheck("database", lambda: True), HealthCheck(HOSTILE.title, lambda: False)],
            management_bind=address,
            status_path="/status",
            metrics_path="/metrics",
        )
        lifespan = app.broker_lifespan
        async with app.start_lifespan_context():
            await lifespan.pause(paused)
            expected = Counter({"paused": 1, "check_failed": 1, "unreachable": 2})
            await eventually(lambda: expected <= _seen(lifespan), 30.0)
            yield f"http://{address}/status"


async def captions(visited: Visit) -> list[str]:
    return await visited.page.locator("caption").all_inner_texts()


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        pytest.param("light", 1280, marks=pytest.mark.full),
        pytest.param("dark", 1280, marks=pytest.mark.full),
        ("dark", 390),
        pytest.param("light", 390, marks=pytest.mark.full),
    ],
)
async def test_the_page_is_complete_and_fits(
    browser: Browser, shared_nats: NatsServer, scheme: str, width: int
) -> None:
    async with service(shared_nats.url) as url, visit(browser, url, scheme=scheme, width=width) as visited:  # type: ignore[arg-type]  # of the parametrization
        page = visited.page
        assert await page.title() == f"✗ Not ready · {await page.locator('dd code').nth(1).inner_text()}"
        assert await captions(visited) == CAPTIONS
        text = await visited.visible()
        assert "Status: ✗ not ready" in text
        assert HOSTILE.title in text
        assert HOSTILE.field in text
        assert await page.evaluate("window.pwned") is None
        # The first row of the subscribers is one that does not consume.
        assert "Consumes" not in await page.locator(".subscribers tbody tr").first.inner_text()
        assert await visited.overflow() == 0
        assert (await visited.lightness() > 128) == (scheme == "light")
        await visited.screenshot(f"status-{scheme}-{width}.png")
        await visited.check()


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_nothing(
    browser: Browser, shared_nats: NatsServer, scheme: Literal["light", "dark"], width: int
) -> None:
    async with (
        service(shared_nats.url) as url,
        # axe has a rule against pages that load again; this one says how to stop it, with this very link.
        visit(browser, f"{url}?refresh=0", scheme=scheme, width=width) as visited,
    ):
        assert await visited.obstacles() == {}


@pytest.mark.full
async def test_the_page_is_loaded_again_and_keeps_its_place(
    browser: Browser, shared_nats: NatsServer
) -> None:
    async with service(shared_nats.url) as url, visit(browser, url) as visited:
        page = visited.page
        await page.evaluate("scrollTo({top: 900, behavior: 'instant'})")
        before = await page.locator("dd time").nth(2).inner_text()
        await expect(page.locator("dd time").nth(2)).not_to_have_text(before, timeout=PATIENCE)
        await visited.wait_for("scrollY > 800")
        await page.get_by_role("link", name="Stop refreshing").click()
        await page.wait_for_url("**/status?refresh=0")
        assert await page.locator("meta[http-equiv]").count() == 0
        await page.get_by_role("link", name="Refresh every 5 s").click()
        await page.wait_for_url("**/status?")
        assert await page.locator("meta[http-equiv]").count() == 1
        await page.get_by_role("link", name="Metrics").click()
        await page.wait_for_url("**/metrics")


@pytest.mark.full
async def test_the_page_can_be_used_with_the_keyboard(browser: Browser, shared_nats: NatsServer) -> None:
    async with service(shared_nats.url) as url, visit(browser, f"{url}?refresh=0", width=390) as visited:
        page = visited.page
        focused = []
        for _ in range(8):
            await page.keyboard.press("Tab")
            focused.append(await visited.focused())
        assert all(each["visible"] for each in focused)
        assert [each["text"] for each in focused[:4]] == [
            "Skip to the content",
            "Refresh every 5 s",
            "JSON",
            "Metrics",
        ]
        # Each table scrolls with the arrow keys.
        assert [each["tag"] for each in focused[4:]] == ["div"] * await page.locator(".scroll").count()
        subscribers = page.get_by_role("region", name="Subscribers")
        await subscribers.focus()
        await page.keyboard.press("ArrowRight")
        await visited.wait_for("document.querySelector('.subscribers').scrollLeft > 0")


@pytest.mark.full
async def test_the_page_can_be_printed(browser: Browser, shared_nats: NatsServer) -> None:
    async with service(shared_nats.url) as url, visit(browser, url, scheme="dark", width=800) as visited:
        await visited.page.emulate_media(media="print")
        assert await visited.overflow() == 0
        assert await visited.lightness() == 255
        colour = await visited.page.locator("h1 span").first.evaluate("each => getComputedStyle(each).color")
        assert colour == "rgb(0, 0, 0)"
        # Nothing is cut off.
        scrolled = "each => each.scrollWidth - each.clientWidth"
        tables = await visited.page.locator(".scroll").all()
        assert [await table.evaluate(scrolled) for table in tables] == [0] * 4
        assert (await visited.page.pdf()).startswith(b"%PDF")
