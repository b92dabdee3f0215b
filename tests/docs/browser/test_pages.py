"""The AsyncAPI page in a real browser: offline, under its policy, whoever looks at it, whatever it says."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.browsing import CHROMIUM, NO_CHROMIUM, visit
from tests.browser.service import APPS, CREDENTIALS, HOSTILE, PLAIN
from tests.servers import HOST
from tests.servers.asgi import AppServer

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser

    from tests.browser.browsing import Visit
    from tests.browser.conftest import Service, Services

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    # One browser for all of them.
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

HOSTS = [name if name == "standalone" else pytest.param(name, marks=pytest.mark.full) for name in APPS]
PATIENCE = 30_000.0
"""Milliseconds that the page may take on a busy machine."""
OPERATIONS = (
    "orders.paid",
    "orders.created",
    "shipments.eu.*.requested.for.a.warehouse.with.a.rather.long.name",
)


async def rendered(seen: Visit) -> None:
    """Wait until the viewer shows the last thing on its page."""
    await seen.page.locator("asyncapi-viewer h2", has_text="Schemas").wait_for(timeout=PATIENCE)


def facts(document: dict[str, Any]) -> dict[str, set[str]]:
    """Return what the page of a document has to show, from the document itself."""
    components = document["components"]
    return {
        "operations": {channel.get("address") or name for name, channel in document["channels"].items()},
        "messages": {message.get("title", name) for name, message in components["messages"].items()},
        "schemas": set(components["schemas"]),
        "properties": {
            name for schema in components["schemas"].values() for name in schema.get("properties", ())
        },
        "descriptions": {"Every order that was paid", "Ship it.", "Takes orders, and tells the"},
    }


async def check_facts(seen: Visit, service: Service) -> None:
    async with httpx.AsyncClient() as http:
        document = (await http.get(f"{service.page.rstrip('/')}/asyncapi.json")).json()
    wanted = facts(document)
    assert {len(wanted["operations"]), len(wanted["messages"])} == {3}
    assert wanted["schemas"] == {"Order", "Line", "Receipt", "Shipment"}
    assert wanted["properties"] >= {
        "order_id",
        "sku",
        "quantity",
        "customer_note",
        "carrier",
        "total_in_cents",
    }
    text = await seen.visible()
    missing = {kind: {each for each in each_kind if each not in text} for kind, each_kind in wanted.items()}
    assert not any(missing.values()), (missing, text)


async def check_icon(seen: Visit) -> None:
    icon = await seen.page.locator("link[rel=icon]").get_attribute("href")
    assert icon is not None
    # Drawn by the browser: a file that is no picture has no size.
    size = await seen.page.evaluate(
        "async (href) => { const image = new Image(); image.src = href; await image.decode();"
        " return image.width; }",
        icon,
    )
    assert size > 0


# --- what it shows ---


@pytest.mark.parametrize("host", HOSTS)
async def test_the_viewer_shows_everything(
    browser: Browser, services: Services, host: str, pictures: Path
) -> None:
    service = services(host)
    async with visit(browser, service.page) as seen:
        await rendered(seen)
        assert await seen.page.title() == f"{PLAIN.title} AsyncAPI"
        assert await seen.page.locator("asyncapi-viewer article.op").count() == len(OPERATIONS)
        await check_facts(seen, service)
        await check_icon(seen)
        assert not await seen.page.locator("main#main").is_visible()
        await seen.page.screenshot(path=pictures / f"viewer-{host}.png", full_page=True)
        await seen.check()


@pytest.mark.parametrize("host", HOSTS)
async def test_the_plain_page_shows_everything(browser: Browser, services: Services, host: str) -> None:
    service = services(host, viewer=False)
    async with visit(browser, service.page) as seen:
        await check_facts(seen, service)
        await check_icon(seen)
        assert "This is the plain page." in await seen.visible()
        assert await seen.page.locator("asyncapi-viewer").count() == 0
        await seen.check()


@pytest.mark.full
@pytest.mark.parametrize("viewer", [True, False], ids=["viewer", "plain"])
async def test_asyncapi_2(browser: Browser, services: Services, viewer: bool) -> None:
    service = services(version="2.6.0", viewer=viewer)
    async with visit(browser, service.page) as seen:
        if viewer:
            await rendered(seen)
        await check_facts(seen, service)
        await seen.check()


async def test_without_scripts_there_is_the_plain_page(browser: Browser, services: Services) -> None:
    service = services()
    async with visit(browser, service.page, scripts=False) as seen:
        assert await seen.page.locator("main#main h1").is_visible()
        text = await seen.page.locator("main#main").inner_text()
        assert all(operation in text for operation in OPERATIONS)
        assert not seen.elsewhere


@pytest.mark.full
async def test_a_policy_that_forbids_scripts_leaves_the_plain_page(
    browser: Browser, services: Services
) -> None:
    service = services(page={"csp": "default-src 'none'; style-src 'self'; img-src 'self'"})
    async with visit(browser, service.page) as seen:
        await check_facts(seen, service)
        [violation] = await seen.violations()
        assert re.fullmatch(r"script-src(-elem)? http://.*/viewer\.\w+\.js", violation)


async def test_no_credentials(browser: Browser, services: Services) -> None:
    async with visit(browser, services().page) as seen:
        await rendered(seen)
        text = await seen.visible() + await seen.page.content()
        assert "shipping.example:4222" in text
        assert not any(secret in text for secret in CREDENTIALS)


# --- how it looks ---


@pytest.mark.parametrize("viewer", [True, False], ids=["viewer", "plain"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_light_and_dark_narrow_and_wide(
    browser: Browser, services: Services, viewer: bool, scheme: Any, pictures: Path
) -> None:
    service = services(viewer=viewer)
    for width in (360, 768, 1600):
        async with visit(browser, service.page, scheme=scheme, width=width) as seen:
            if viewer:
                await rendered(seen)
            assert await seen.overflow() == 0
            lightness = await seen.lightness()
            assert lightness > 200 if scheme == "light" else lightness < 50
            name = f"{'viewer' if viewer else 'plain'}-{scheme}-{width}.png"
            await seen.page.screenshot(path=pictures / name, full_page=True)
            await seen.check()


@pytest.mark.parametrize("viewer", [True, False], ids=["viewer", "plain"])
async def test_it_prints_in_black_on_white(
    browser: Browser, services: Services, viewer: bool, pictures: Path
) -> None:
    service = services(viewer=viewer)
    async with visit(browser, service.page, scheme="dark") as seen:
        if viewer:
            await rendered(seen)
        await seen.page.emulate_media(media="print", color_scheme="dark")
        await check_facts(seen, service)
        text = await seen.visible()
        assert "Search operations" not in text
        assert "Skip to the content" not in text
        assert await seen.lightness() == 255
        assert await seen.overflow() == 0
        assert (await seen.page.pdf()).startswith(b"%PDF")
        name = f"print-{'viewer' if viewer else 'plain'}.png"
        await seen.page.screenshot(path=pictures / name, full_page=True)
        await seen.check()


async def stops(seen: Visit, most: int = 120) -> list[dict[str, Any]]:
    """Press Tab until the focus has left the page, and return where it has been."""
    found: list[dict[str, Any]] = []
    while True:
        await seen.page.keyboard.press("Tab")
        at = await seen.focused()
        if at["tag"] == "body":
            return found
        found.append(at)
        assert len(found) < most, found


async def test_the_viewer_by_keyboard(browser: Browser, services: Services) -> None:
    async with visit(browser, services().page) as seen:
        await rendered(seen)
        found = await stops(seen)
        assert [at for at in found if not at["seen"]] == []
        reached = "\n".join(at["text"] for at in found)
        for text in ("Search operations", *OPERATIONS, "Download spec", "Order", "Receipt", "Copy"):
            assert text in reached, (text, reached)
        link = seen.page.locator("asyncapi-viewer nav a", has_text=OPERATIONS[1]).first
        await link.focus()
        await seen.page.keyboard.press("Enter")
        heading = seen.page.locator("asyncapi-viewer article.op h3", has_text=OPERATIONS[1])
        await seen.page.wait_for_url("**#*", timeout=PATIENCE)
        await expect(heading).to_be_in_viewport(timeout=PATIENCE)
        await seen.check()


async def test_the_plain_page_by_keyboard(browser: Browser, services: Services) -> None:
    async with visit(browser, services(viewer=False).page) as seen:
        found = await stops(seen)
        assert [at for at in found if not at["seen"]] == []
        assert found[0]["text"] == "Skip to the content"
        reached = {at["text"] for at in found}
        assert reached >= {*OPERATIONS, "Order", "Receipt", "JSON", "YAML", "JSON Schema"}
        link = seen.page.locator("nav a", has_text=OPERATIONS[1]).first
        await link.focus()
        await seen.page.keyboard.press("Enter")
        await seen.page.wait_for_url("**#*", timeout=PATIENCE)
        await expect(seen.page.locator(".card:target")).to_be_in_viewport(timeout=PATIENCE)
        await seen.check()


# --- what it does not do ---


@pytest.mark.parametrize("version", ["3.0.0", pytest.param("2.6.0", marks=pytest.mark.full)])
@pytest.mark.parametrize("viewer", [True, False], ids=["viewer", "plain"])
async def test_hostile_texts_run_nothing(
    browser: Browser, services: Services, viewer: bool, version: str, pictures: Path
) -> None:
    service = services(texts="hostile", viewer=viewer, version=version)
    async with visit(browser, service.page) as seen:
        if viewer:
            await rendered(seen)
        assert await seen.page.title() == f"{HOSTILE.title} AsyncAPI".replace("\t", " ")
        closed = seen.page.locator("details:not([open]) > summary:visible")
        while await closed.count():
            await closed.first.click(timeout=PATIENCE)
        assert HOSTILE.field in await seen.visible()
        assert await seen.page.evaluate("window.pwned") is None
        urls = [re.sub(r"[\x00-\x20]", "", url) for url in await seen.attributes("href")]
        assert len(urls) > 5
        assert [url for url in urls if re.match("(javascript|vbscript|data):", url, re.IGNORECASE)] == []
        assert await seen.attributes("onerror") == await seen.attributes("onload") == []
        assert await seen.attributes("srcdoc") == []
        assert await seen.page.locator("iframe, style, object, embed").count() == 0
        await seen.page.screenshot(path=pictures / f"hostile-{version}-{viewer}.png", full_page=True)
        await seen.check()


@pytest.mark.full
@pytest.mark.parametrize("policy", [True, False], ids=["policy", "no policy"])
async def test_a_picture_in_a_description_asks_nobody(
    browser: Browser, services: Services, policy: bool
) -> None:
    """Without the policy it would: then it is the test that stops it."""
    picture = "https://tracker.example/pixel.png"
    service = services(texts="tracking", page={} if policy else {"csp": None})
    async with visit(browser, service.page) as seen:
        await rendered(seen)
        await expect(seen.page.locator("asyncapi-viewer img").first).to_be_attached(timeout=PATIENCE)
        assert set(await seen.violations()) == ({f"img-src {picture}"} if policy else set())
        assert set(seen.elsewhere) == (set() if policy else {picture})


@pytest.mark.full
async def test_a_second_visit_loads_nothing_twice(browser: Browser, services: Services) -> None:
    service = services("fastapi", page={"errors": False})  # nobody else's
    context = await browser.new_context()
    try:
        page = await context.new_page()
        for _ in range(2):
            await page.goto(service.page)
            await page.locator("asyncapi-viewer h2", has_text="Schemas").wait_for(timeout=PATIENCE)
    finally:
        await context.close()
    # The first request has waited for the start; the access log is uvicorn's.
    log = re.findall(r'"GET /asyncapi(\S*) HTTP/1.1" (\d+)', service.output())
    assert [status for path, status in log if not path] == ["200", "200", "304"]
    assert [status for path, status in log if path == "/viewer/asyncapi.json"] == ["200", "304"]
    files = [path for path, _ in log if re.fullmatch(r"/\w+\.[0-9a-f]{12}\.\w+", path)]
    assert len(files) == len(set(files)) >= 2, log


# --- the React component ---

COMPONENT = """
"use strict";
// Does what AsyncAPI's own component needs to be allowed to do.
const AsyncApiStandalone = {
  render({ schema, config }, root) {
    const title = new Function("text", "return JSON.parse(text).info.title")(schema);
    root.textContent = `${title} ${Object.values(config.show).filter(Boolean).length}`;
    root.style.color = "rgb(1, 2, 3)";
  },
};
"""


@pytest.mark.full
async def test_a_component_from_another_origin(browser: Browser, services: Services) -> None:
    command = ["-m", "http.server", "{port}", "--bind", HOST, "--directory", "{directory}"]
    other = AppServer([sys.executable, *command])
    other.files |= {"component.js": COMPONENT, "component.css": "#asyncapi { font-size: 77px }"}
    with other:
        service = services(
            page={
                "asyncapi_js_url": f"{other.url}/component.js",
                "asyncapi_css_url": f"{other.url}/component.css",
                "sidebar": False,
            }
        )
        async with visit(browser, service.page, other.url) as seen:
            shown = seen.page.locator("#asyncapi")
            await expect(shown).to_have_text(f"{PLAIN.title} 6", timeout=PATIENCE)
            await expect(shown).to_have_css("font-size", "77px")
            await expect(shown).to_have_css("color", "rgb(1, 2, 3)")
            await check_icon(seen)
            await seen.check()
