"""The AsyncAPI page in a real browser: content, policy, appearance, accessibility and hostile texts."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.async_api import expect

from tests.docs.browser.browsing import CHROMIUM, NO_CHROMIUM, visit
from tests.docs.browser.service import APPS, CREDENTIALS, HOSTILE, PLAIN
from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator

    from tests.docs.browser.browsing import Visit
    from tests.docs.browser.conftest import Service, Services

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    # All tests share one browser.
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


async def wait_for_viewer(visited: Visit) -> None:
    """Wait until the viewer shows the last section of its page."""
    await visited.page.locator("asyncapi-viewer h2", has_text="Schemas").wait_for(timeout=PATIENCE)


def expected_texts(document: dict[str, Any]) -> dict[str, set[str]]:
    """Return the texts that the page of a document must show."""
    components = document["components"]
    return {
        "operations": {
            channel.get("address") or name.partition(":")[0] for name, channel in document["channels"].items()
        },
        "messages": {
            message["payload"]["$ref"].rpartition("/")[2] for message in components["messages"].values()
        },
        "schemas": set(components["schemas"]),
        "properties": {
            name for schema in components["schemas"].values() for name in schema.get("properties", ())
        },
        "descriptions": {"Every order that was paid", "Ship it.", "Takes orders and notifies the"},
    }


async def check_texts(visited: Visit, service: Service) -> None:
    async with httpx.AsyncClient() as http:
        document = (await http.get(f"{service.page.rstrip('/')}/asyncapi.json")).json()
    expected = expected_texts(document)
    assert {len(expected["operations"]), len(expected["messages"])} == {3}
    assert expected["schemas"] == {"Order", "Line", "Receipt", "Shipment"}
    assert expected["properties"] >= {
        "order_id",
        "sku",
        "quantity",
        "customer_note",
        "carrier",
        "total_in_cents",
    }
    text = await visited.visible()
    missing = {kind: {each for each in each_kind if each not in text} for kind, each_kind in expected.items()}
    assert not any(missing.values()), (missing, text)


async def check_icon(visited: Visit) -> None:
    icon = await visited.page.locator("link[rel=icon]").get_attribute("href")
    assert icon is not None
    # The browser decodes it, which fails for a file that is not an image.
    size = await visited.page.evaluate(
        "async (href) => { const image = new Image(); image.src = href; await image.decode();"
        " return image.width; }",
        icon,
    )
    assert size > 0


# --- content ---


@pytest.mark.parametrize("host", HOSTS)
async def test_the_viewer_shows_everything(browser: Browser, services: Services, host: str) -> None:
    service = services(host)
    async with visit(browser, service.page) as visited:
        await wait_for_viewer(visited)
        assert await visited.page.title() == f"{PLAIN.title} AsyncAPI"
        assert await visited.page.locator("asyncapi-viewer article.op").count() == len(OPERATIONS)
        await check_texts(visited, service)
        await check_icon(visited)
        assert not await visited.page.locator("main#main").is_visible()
        await visited.screenshot(f"viewer-{host}.png")
        await visited.check()


@pytest.mark.full
@pytest.mark.parametrize("host", HOSTS)
async def test_the_plain_page_shows_everything(browser: Browser, services: Services, host: str) -> None:
    service = services(host, viewer=False)
    async with visit(browser, service.page) as visited:
        await check_texts(visited, service)
        await check_icon(visited)
        assert "This is the plain page." in await visited.visible()
        assert await visited.page.locator("asyncapi-viewer").count() == 0
        await visited.check()


@pytest.mark.full
@pytest.mark.parametrize("viewer", [True, False], ids=["viewer", "plain"])
async def test_asyncapi_2_6_shows_everything(browser: Browser, services: Services, viewer: bool) -> None:
    service = services(version="2.6.0", viewer=viewer)
    async with visit(browser, service.page) as visited:
        if viewer:
            await wait_for_viewer(visited)
        await check_texts(visited, service)
        await visited.check()


@pytest.mark.full
async def test_the_plain_page_is_shown_without_scripts(browser: Browser, services: Services) -> None:
    service = services()
    async with visit(browser, service.page, scripts=False) as visited:
        assert await visited.page.locator("main#main h1").is_visible()
        text = await visited.page.locator("main#main").inner_text()
        assert all(operation in text for operation in OPERATIONS)
        assert not visited.elsewhere


@pytest.mark.full
async def test_the_plain_page_is_shown_under_a_policy_that_forbids_scripts(
    browser: Browser, services: Services
) -> None:
    service = services(page={"csp": "default-src 'none'; style-src 'self'; img-src 'self'"})
    async with visit(browser, service.page) as visited:
        await check_texts(visited, service)
        violations = await visited.violations()
        assert len(violations) == 3
        for violation in violations:
            assert re.fullmatch(r"script-src(-elem)? http://.*/(filter|page|viewer)\.\w+\.js", violation)


async def test_credentials_are_not_shown(browser: Browser, services: Services) -> None:
    async with visit(browser, services().page) as visited:
        await wait_for_viewer(visited)
        text = await visited.visible() + await visited.page.content()
        assert "shipping.example:4222" in text
        assert not any(secret in text for secret in CREDENTIALS)


# --- what the viewer shows of a message ---


def row_of(visited: Visit, name: str) -> Locator:
    """Return the first row of a field in the viewer's trees."""
    exact = visited.page.locator(".row__name", has_text=re.compile(f"^{name}$"))
    return visited.page.locator("asyncapi-viewer .row__line1", has=exact).first


@pytest.mark.parametrize("version", ["3.0.0", pytest.param("2.6.0", marks=pytest.mark.full)])
async def test_the_viewer_shows_types_names_and_directions(
    browser: Browser, services: Services, version: str
) -> None:
    async with visit(browser, services(version=version, subscribers=1).page) as visited:
        await wait_for_viewer(visited)
        for field, shown in {
            "customer_note": "string | null",
            "price": "number | string",
            "weight": "number | null",
            "sender": "object · Address",
            "receiver": "object | null · Address",
            "lines": "array<object · Line>",
        }.items():
            await expect(row_of(visited, field).locator(".row__type")).to_have_text(shown, timeout=PATIENCE)
        operations = visited.page.locator("asyncapi-viewer article.op")
        paid = operations.filter(has_text="Paid Order service").first
        await expect(paid.locator("h3")).to_have_text("Paid Order service")
        await expect(paid.locator(".badge")).to_have_text("SEND")
        taken = operations.filter(has=visited.page.locator("h3", has_text="orders.created"))
        await expect(taken.locator(".badge")).to_have_text("RECEIVE")
        await expect(taken.locator("h4 .mono").first).to_have_text("Order")
        text = await visited.visible()
        assert not re.search("anyOf|Variant 1|PUB|SUB|SubscribeMessage|bindingVersion", text), text
        parcel = operations.filter(has=visited.page.locator("h3", has_text="parcels.region-0.sent"))
        await expect(parcel.locator(".ex")).to_contain_text('"barcode": "AA-11111111"')
        await parcel.get_by_role("link", name="Address").first.click()
        entry = visited.page.locator("details#asyncapi--schemas--Address")
        await expect(entry).to_have_attribute("open", "", timeout=PATIENCE)
        await expect(entry).to_be_in_viewport()
        await visited.screenshot(f"viewer-types-{version}.png")
        await visited.check()


async def test_the_document_itself_can_be_downloaded(browser: Browser, services: Services) -> None:
    service = services()
    async with visit(browser, service.page) as visited, httpx.AsyncClient() as http:
        await wait_for_viewer(visited)
        async with visited.page.expect_download() as started:
            await visited.page.get_by_text("Download spec").click()
        file = await started.value
        assert file.suggested_filename == "asyncapi.json"
        content = (await file.path()).read_text(encoding="utf-8")
        assert json.loads(content) == (await http.get(f"{service.page}/asyncapi.json")).json()
        await visited.check()


# --- where the viewer is not shown ---


@pytest.mark.parametrize("failure", ["status", pytest.param("content", marks=pytest.mark.full)])
async def test_the_plain_page_is_shown_when_the_viewer_cannot_load_the_document(
    browser: Browser, services: Services, failure: str
) -> None:
    service = services()
    async with visit(browser, service.page) as visited:
        answer: dict[str, Any] = {"status": 500} if failure == "status" else {"body": "{"}
        await visited.page.route("**/viewer/asyncapi.json", lambda route: route.fulfill(**answer))
        await visited.page.reload()
        await expect(visited.page.locator("main#main")).to_be_visible(timeout=PATIENCE)
        await expect(visited.page.locator("asyncapi-viewer")).to_have_count(0)
        await check_texts(visited, service)
        assert "Could not load" not in await visited.visible()
        assert visited.errors == await visited.violations() == []


LARGE = [
    pytest.param(150, 15_000, id="150"),
    pytest.param(400, 40_000, id="400", marks=pytest.mark.full),
]


LAID_OUT = """() => [...document.querySelectorAll(".card > :first-child")].filter(
  (each) => each.checkVisibility({ contentVisibilityAuto: true })
).length"""
"""The number of cards that the browser has laid out."""
AT_THE_TOP = """() => {
  const { top } = document.querySelector(":target").getBoundingClientRect();
  return top >= 0 && top < 100;
}"""


@pytest.mark.parametrize(("subscribers", "limit"), LARGE)
async def test_a_large_document_is_shown_as_the_plain_page(
    browser: Browser, services: Services, subscribers: int, limit: int
) -> None:
    service = services(subscribers=subscribers)
    async with visit(browser, service.page) as visited:
        await expect(visited.page.locator("main#main")).to_be_visible(timeout=PATIENCE)
        assert await visited.page.locator("asyncapi-viewer").count() == 0
        assert f"parcels.region-{subscribers - 1}.sent" in await visited.visible()
        assert await visited.elements() < limit
        await visited.check()


async def test_only_the_visible_operations_of_a_large_document_are_laid_out(
    browser: Browser, services: Services
) -> None:
    async with visit(browser, services(subscribers=150).page) as visited:
        page = visited.page
        number = await page.locator(".card").count()
        assert 0 < await page.evaluate(LAID_OUT) < 60 < number
        # A link nevertheless leads to the beginning of its target, past many cards of unknown height.
        link = page.locator("#contents").get_by_role("link", name="parcels.region-75.sent", exact=True)
        await link.click()
        await page.wait_for_function(AT_THE_TOP, timeout=PATIENCE)
        assert await page.evaluate(LAID_OUT) < 100
        # All of them are printed.
        await page.emulate_media(media="print")
        assert await page.evaluate(LAID_OUT) == number
        await visited.check()


# --- appearance and keyboard ---


@pytest.mark.full
@pytest.mark.parametrize(
    ("scheme", "viewer"),
    [
        pytest.param("light", False, id="light-plain"),
        pytest.param("dark", True, id="dark-viewer"),
        pytest.param("light", True, id="light-viewer"),
        pytest.param("dark", False, id="dark-plain"),
    ],
)
async def test_the_page_fits_every_width_in_light_and_dark(
    browser: Browser, services: Services, viewer: bool, scheme: Any
) -> None:
    service = services(viewer=viewer)
    for width in (360, 768, 1600):
        async with visit(browser, service.page, scheme=scheme, width=width) as visited:
            if viewer:
                await wait_for_viewer(visited)
            assert await visited.overflow() == 0
            lightness = await visited.lightness()
            assert lightness > 200 if scheme == "light" else lightness < 50
            name = f"{'viewer' if viewer else 'plain'}-{scheme}-{width}.png"
            await visited.screenshot(name)
            await visited.check()


@pytest.mark.full
@pytest.mark.parametrize("viewer", [True, False], ids=["viewer", "plain"])
async def test_the_page_prints_on_white(browser: Browser, services: Services, viewer: bool) -> None:
    service = services(viewer=viewer)
    async with visit(browser, service.page, scheme="dark") as visited:
        if viewer:
            await wait_for_viewer(visited)
        await visited.page.emulate_media(media="print", color_scheme="dark")
        await check_texts(visited, service)
        text = await visited.visible()
        assert "Search operations" not in text
        assert "Skip to the content" not in text
        assert "Filter" not in text
        assert await visited.lightness() == 255
        assert await visited.overflow() == 0
        assert (await visited.page.pdf()).startswith(b"%PDF")
        name = f"print-{'viewer' if viewer else 'plain'}.png"
        await visited.screenshot(name)
        await visited.check()


async def tab_stops(visited: Visit, limit: int = 120) -> list[dict[str, Any]]:
    """Press Tab until the focus leaves the page, and return the elements that had it."""
    found: list[dict[str, Any]] = []
    while True:
        await visited.page.keyboard.press("Tab")
        at = await visited.focused()
        if at["tag"] == "body":
            return found
        found.append(at)
        assert len(found) < limit, found


@pytest.mark.full
async def test_the_viewer_is_usable_by_keyboard(browser: Browser, services: Services) -> None:
    async with visit(browser, services().page) as visited:
        await wait_for_viewer(visited)
        found = await tab_stops(visited)
        assert [at for at in found if not at["visible"]] == []
        reached = "\n".join(at["text"] for at in found)
        for text in (
            "Search operations",
            f"Paid {PLAIN.title}",
            *OPERATIONS[1:],
            "Download spec",
            "Receipt",
            "Copy",
        ):
            assert text in reached, (text, reached)
        link = visited.page.locator("asyncapi-viewer nav a", has_text=OPERATIONS[1]).first
        await link.focus()
        await visited.page.keyboard.press("Enter")
        heading = visited.page.locator("asyncapi-viewer article.op h3", has_text=OPERATIONS[1])
        await visited.page.wait_for_url("**#*", timeout=PATIENCE)
        await expect(heading).to_be_in_viewport(timeout=PATIENCE)
        await visited.check()


@pytest.mark.full
async def test_the_plain_page_is_usable_by_keyboard(browser: Browser, services: Services) -> None:
    async with visit(browser, services(viewer=False).page) as visited:
        found = await tab_stops(visited)
        assert [at for at in found if not at["visible"]] == []
        assert found[0]["text"] == "Skip to the content"
        reached = {at["text"] for at in found}
        assert reached >= {f"Paid {PLAIN.title}", *OPERATIONS[1:], "Order", "Receipt", "JSON", "YAML"}
        link = visited.page.locator("nav a", has_text=OPERATIONS[1]).first
        await link.focus()
        await visited.page.keyboard.press("Enter")
        await visited.page.wait_for_url("**#*", timeout=PATIENCE)
        await expect(visited.page.locator(".card:target")).to_be_in_viewport(timeout=PATIENCE)
        await visited.check()


async def filter_by(visited: Visit, words: str) -> tuple[list[str], list[str]]:
    """Fill in the filter, and return the headings and the links that are shown."""
    await visited.page.get_by_role("searchbox", name="Filter").fill(words)
    headings = await visited.page.locator("main#main .card:visible h3").all_inner_texts()
    links = await visited.page.locator("nav li a:visible").all_inner_texts()
    return headings, links


@pytest.mark.full
async def test_the_filter_finds_operations_models_and_fields(browser: Browser, services: Services) -> None:
    async with visit(browser, services(page={"view": "plain"}).page) as visited:
        everything = await filter_by(visited, "")
        assert await filter_by(visited, "shipments.eu") == (
            [f"receives{OPERATIONS[2]}"],
            [OPERATIONS[2], "Shipment"],
        )
        assert await filter_by(visited, "LINE") == (
            ["receivesorders.created", "Line"],
            ["orders.created", "Line", "Order"],
        )
        assert await filter_by(visited, "sku minimum-nothing") == ([], [])
        assert await filter_by(visited, "sku") == (["Line"], ["Line"])
        assert await visited.page.locator("output").inner_text() == "1 of 6"
        marked = visited.page.locator(".match:visible th")
        assert [text.split()[0] for text in await marked.all_inner_texts()] == ["sku"]
        await filter_by(visited, "orders.created")
        # A link to what is filtered out shows everything.
        await visited.page.locator("main#main a", has_text="Line").first.click()
        await expect(visited.page.locator("#schema-Line")).to_be_in_viewport(timeout=PATIENCE)
        assert await filter_by(visited, "") == everything
        await visited.page.keyboard.press("Enter")
        await visited.check()


@pytest.mark.full
async def test_the_filter_is_not_shown_without_scripts(browser: Browser, services: Services) -> None:
    async with visit(browser, services(viewer=False).page, scripts=False) as visited:
        await expect(visited.page.locator("main#main h1")).to_be_visible()
        await expect(visited.page.locator(".filter")).to_be_hidden()


@pytest.mark.full
async def test_the_contents_of_a_narrow_page_are_collapsed(browser: Browser, services: Services) -> None:
    async with visit(browser, services(viewer=False).page, width=390) as visited:
        link = visited.page.locator("nav li a", has_text=OPERATIONS[1])
        await expect(link).to_be_hidden()
        await visited.page.locator("nav summary").click()
        await link.click()
        await expect(visited.page.locator(".card:target")).to_be_in_viewport(timeout=PATIENCE)
        await visited.page.locator("nav").get_by_role("link", name="Contents").click()
        await expect(visited.page.locator("nav summary")).to_be_in_viewport(timeout=PATIENCE)
        await visited.check()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("view", "width"),
    [
        ("plain", 1280),
        pytest.param("plain", 390, marks=pytest.mark.full),
        pytest.param("viewer", 1280, marks=pytest.mark.full),
        pytest.param("viewer", 390, marks=pytest.mark.full),
    ],
)
async def test_axe_finds_nothing(
    browser: Browser, services: Services, view: str, width: int, scheme: Any
) -> None:
    service = services() if view == "viewer" else services(page={"view": "plain"})
    async with visit(browser, service.page, scheme=scheme, width=width) as visited:
        if view == "viewer":
            await wait_for_viewer(visited)
        assert await visited.obstacles() == {}
        await visited.check()


# --- security and caching ---


@pytest.mark.full
@pytest.mark.parametrize("version", ["3.0.0", "2.6.0"])
@pytest.mark.parametrize("viewer", [True, False], ids=["viewer", "plain"])
async def test_hostile_texts_are_not_executed(
    browser: Browser, services: Services, viewer: bool, version: str
) -> None:
    service = services(texts="hostile", viewer=viewer, version=version)
    async with visit(browser, service.page) as visited:
        if viewer:
            await wait_for_viewer(visited)
        assert await visited.page.title() == f"{HOSTILE.title} AsyncAPI".replace("\t", " ")
        closed = visited.page.locator("details:not([open]) > summary:visible")
        while await closed.count():
            await closed.first.click(timeout=PATIENCE)
        folded = visited.page.locator("button:visible", has_text="Expand all")
        while await folded.count():
            await folded.first.click(timeout=PATIENCE)
        # Fields of several types show one of them at a time.
        for choice in await visited.page.locator(".variants button:visible").all():
            await choice.click(timeout=PATIENCE)
        assert HOSTILE.field in await visited.visible()
        assert await visited.page.evaluate("window.pwned") is None
        urls = [re.sub(r"[\x00-\x20]", "", url) for url in await visited.attributes("href")]
        assert len(urls) > 5
        assert [url for url in urls if re.match("(javascript|vbscript|data):", url, re.IGNORECASE)] == []
        assert await visited.attributes("onerror") == await visited.attributes("onload") == []
        assert await visited.attributes("srcdoc") == []
        assert await visited.page.locator("iframe, style, object, embed").count() == 0
        await visited.screenshot(f"hostile-{version}-{viewer}.png")
        await visited.check()


@pytest.mark.full
@pytest.mark.parametrize("policy", [True, False], ids=["policy", "no policy"])
async def test_the_policy_blocks_images_from_other_origins(
    browser: Browser, services: Services, policy: bool
) -> None:
    """Without the policy the browser requests the image, which this test then blocks."""
    picture = "https://tracker.example/pixel.png"
    service = services(texts="tracking", page={} if policy else {"csp": None})
    async with visit(browser, service.page) as visited:
        await wait_for_viewer(visited)
        await expect(visited.page.locator("asyncapi-viewer img").first).to_be_attached(timeout=PATIENCE)
        assert set(await visited.violations()) == ({f"img-src {picture}"} if policy else set())
        assert set(visited.elsewhere) == (set() if policy else {picture})


@pytest.mark.full
async def test_a_second_visit_uses_the_cache(browser: Browser, services: Services) -> None:
    service = services("fastapi", page={"errors": False})  # A configuration that no other test uses.
    context = await browser.new_context()
    try:
        page = await context.new_page()
        for _ in range(2):
            await page.goto(service.page)
            await page.locator("asyncapi-viewer h2", has_text="Schemas").wait_for(timeout=PATIENCE)
    finally:
        await context.close()
    # The first request is the check that the server is ready. The log is that of uvicorn.
    log = re.findall(r'"GET /asyncapi(\S*) HTTP/1.1" (\d+)', service.output())
    assert [status for path, status in log if not path] == ["200", "200", "304"]
    assert [status for path, status in log if path == "/viewer/asyncapi.json"] == ["200", "304"]
    files = [path for path, _ in log if re.fullmatch(r"/\w+\.[0-9a-f]{12}\.\w+", path)]
    assert len(files) == len(set(files)) >= 2, log


# --- the React component ---

COMPONENT = """
"use strict";
// Uses the features for which AsyncAPI's React component needs permission.
const AsyncApiStandalone = {
  render({ schema, config }, root) {
    const title = new Function("text", "return JSON.parse(text).info.title")(schema);
    root.textContent = `${title} ${Object.values(config.show).filter(Boolean).length}`;
    root.style.color = "rgb(1, 2, 3)";
  },
};
"""


@pytest.mark.full
async def test_a_component_from_another_origin_is_loaded(browser: Browser, services: Services) -> None:
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
        async with visit(browser, service.page, other.url) as visited:
            shown = visited.page.locator("#asyncapi")
            await expect(shown).to_have_text(f"{PLAIN.title} 6", timeout=PATIENCE)
            await expect(shown).to_have_css("font-size", "77px")
            await expect(shown).to_have_css("color", "rgb(1, 2, 3)")
            await check_icon(visited)
            await visited.check()
