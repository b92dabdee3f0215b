"""The page that publishes, in a real browser: by keyboard, with and without scripts, and attacked."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING, Literal

import nats as nats_py
import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.docs.browser.browsing import CHROMIUM, NO_CHROMIUM, visit
from tests.harness.leftovers import lasting
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from nats.aio.subscription import Subscription
    from playwright.async_api import Browser, Page, Route

    from tests.docs.browser.browsing import Visit
    from tests.harness.servers.nats import NatsServer

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
    # All tests share one browser.
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

RUN = "window.pwned=true"

SERVICE = f"""
import os

from faststream.nats import NatsBroker
from pydantic import BaseModel, Field

from faststream_adapters import AsgiFastStream

broker = NatsBroker(os.environ["NATS_URL"])
subject = os.environ["SUBJECT"]


class Order(BaseModel):
    \"\"\"</script><script>{RUN}</script>\"\"\"

    id: int
    quantity: int = Field(ge=1)
    note: str = Field("", examples=["</textarea><script>{RUN}</script>"])


@broker.subscriber(f"{{subject}}.orders", title="Orders")
async def accept(order: Order) -> str:
    return f"accepted {{order.id}} <img src=x onerror={RUN}>"


@broker.subscriber(f"{{subject}}.logs.*", title="Logs of every region, a long name that needs two lines")
async def log(text: str) -> None: ...


broker.publisher(f"{{subject}}.bills", title="</summary><img src=x onerror={RUN}>", schema=int)
broker.publisher(f"{{subject}}.numbers", title="Numbers", schema=int)
app = AsgiFastStream(broker, publish_path="/admin/publish", authorize=lambda request: True)
"""

FOCUSED = """() => {
  const at = document.activeElement;
  return at.labels?.[0]?.innerText || at.innerText || "";
}"""

ATTACK = """
import os

FORM = '<form method="post" action="{}" enctype="{}"><input name="{}" value="{}"></form>'
JSON = '{&quot;channel&quot;: &quot;Numbers&quot;, &quot;message&quot;: 13, &quot;x'


async def app(scope, receive, send):
    assert scope["type"] == "http"
    target = os.environ["TARGET"]
    if scope["path"] == "/text":
        form = FORM.format(target, "text/plain", JSON, "&quot;: 1}")
    else:
        form = FORM.format(target, "application/x-www-form-urlencoded", "channel", "Numbers")
    body = (form + "<script>document.forms[0].submit()</script>").encode()
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
"""


class Publishing(AppServer):
    """The service, with two workers, so that a form may be sent to another one than its page came from."""

    subject = f"shop-{uuid.uuid4().hex}"

    @property
    def page(self) -> str:
        return f"{self.url}/admin/publish"


@pytest.fixture(scope="module")
def service(shared_nats: NatsServer) -> Iterator[Publishing]:
    env = {"NATS_URL": shared_nats.url, "SUBJECT": Publishing.subject}
    options = ("--workers", "2", "--lifespan", "on")
    with (
        lasting(),
        Publishing.uvicorn(SERVICE, *options, env=env, ready_path="/admin/publish", timeout=60.0) as started,
    ):
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def published(shared_nats: NatsServer) -> AsyncIterator[Subscription]:
    """Return a subscription to everything that the service publishes."""
    client = await nats_py.connect(shared_nats.url)
    subscription = await client.subscribe(f"{Publishing.subject}.>")
    await client.flush()
    yield subscription
    await client.close()


async def messages(published: Subscription) -> list[tuple[str, bytes]]:
    """Return what was published so far: requests have been answered before this is called."""
    await published._conn.flush()  # noqa: SLF001 (nats-py's subscription has no other name for its client)
    found = []
    while published.pending_msgs:
        message = await published.next_msg()
        found.append((message.subject.rpartition(".")[2], message.data))
    return found


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the focus is on an element whose label or text begins with this."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        text: str = await page.evaluate(FOCUSED)
        if text.strip().startswith(name):
            return
    pytest.fail(f"Tab does not reach {name!r}.")


@pytest.mark.parametrize("scripts", [pytest.param(True, marks=pytest.mark.full), False])
async def test_a_message_is_published_by_keyboard_alone(
    scripts: bool, service: Publishing, browser: Browser, published: Subscription
) -> None:
    async with visit(browser, service.page, scripts=scripts) as visited:
        page = visited.page
        await page.keyboard.press("Tab")
        assert (await visited.focused())["text"] == "Skip to the content"
        await page.keyboard.press("Enter")
        # The form is closed: Enter on its heading opens it.
        await tab_to(page, "receives Orders")
        assert (await visited.focused())["visible"]
        await page.keyboard.press("Enter")
        await tab_to(page, "Message")
        await page.keyboard.press("Control+A")
        await page.keyboard.type('{"id": "x", "quantity": 0}')
        await tab_to(page, "Publish")
        await page.keyboard.press("Enter")
        alert = page.get_by_role("alert")
        await expect(alert).to_be_focused()
        await expect(alert).to_contain_text("message.id Input should be a valid integer")
        await expect(alert).to_contain_text("message.quantity Input should be greater than or equal to 1")
        field = page.get_by_role("form", name="Publish to Orders").get_by_label("Message")
        await expect(field).to_have_value('{"id": "x", "quantity": 0}')
        assert await field.get_attribute("aria-invalid") == "true"
        await visited.screenshot(f"publish-invalid-{scripts}.png")
        assert await messages(published) == []

        await tab_to(page, "Message")
        await page.keyboard.press("Control+A")
        await page.keyboard.type('{"id": 7, "quantity": 2}')
        await tab_to(page, "Headers")
        await page.keyboard.type("x-request-id: r-1")
        await tab_to(page, "Only validate")
        await page.keyboard.press("Enter")
        status = page.get_by_role("status")
        await expect(status).to_contain_text("The message is valid. Nothing was published.")
        assert await messages(published) == []

        await tab_to(page, "Publish")
        await page.keyboard.press("Enter")
        await expect(status).to_be_focused()
        await expect(status).to_contain_text("Published, and the subscriber replied.")
        await expect(status).to_contain_text("accepted 7 <img")
        [(channel, data)] = await messages(published)
        assert (channel, data.replace(b" ", b"")) == ("orders", b'{"id":7,"quantity":2}')
        await visited.screenshot(f"publish-reply-{scripts}.png")
        await _check(visited, scripts=scripts)


async def _check(visited: Visit, *, scripts: bool) -> None:
    """Check that nothing was loaded from elsewhere, blocked or run."""
    if scripts:
        assert await visited.violations() == []
        assert not await visited.page.evaluate("window.pwned === true")
    # The browser logs the 422 of the page.
    console = [line for line in visited.console if "status of 422" not in line]
    assert (visited.elsewhere, visited.failed, visited.errors, console) == ([], [], [], [])


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        pytest.param("light", 1280, marks=pytest.mark.full),
        pytest.param("dark", 1280, marks=pytest.mark.full),
        ("dark", 360),
    ],
)
async def test_the_page_fits_the_screen_and_names_are_texts(
    scheme: str, width: int, service: Publishing, browser: Browser
) -> None:
    async with visit(browser, service.page, scheme=scheme, width=width) as visited:  # type: ignore[arg-type]
        page = visited.page
        for summary in await page.locator(".card > summary").all():
            await summary.click()
        await visited.screenshot(f"publish-{scheme}-{width}.png")
        assert await visited.overflow() == 0
        assert (await visited.lightness() < 128) is (scheme == "dark")
        visible = await visited.visible()
        assert f"</summary><img src=x onerror={RUN}>" in visible
        assert f"Destination, which {service.subject}.logs.* covers" in visible
        example = page.get_by_role("form", name="Publish to Orders").get_by_label("Message")
        assert "</textarea><script>" in await example.input_value()
        # Each field has a label, and each form a name.
        for area in await page.locator("textarea, input:not([type=hidden])").all():
            assert await area.evaluate("(area) => area.labels.length") == 1
        await _check(visited, scripts=True)


async def test_a_double_click_publishes_once(
    service: Publishing, browser: Browser, published: Subscription
) -> None:
    async with visit(browser, service.page) as visited:
        page = visited.page
        sent: list[str] = []
        first, clicked_twice = asyncio.Event(), asyncio.Event()

        async def hold(route: Route) -> None:
            sent.append(route.request.method)
            first.set()
            await clicked_twice.wait()
            await route.continue_()

        form = page.get_by_role("form", name="Publish to Numbers")
        publish = form.get_by_role("button", name="Publish")
        await page.get_by_role("link", name="Numbers").click()
        await form.get_by_label("Message").fill("1")
        await page.route(service.page, hold)
        # Not `dblclick()`, which waits for the page that the first click asks for.
        box = await publish.bounding_box()
        assert box is not None
        at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        await page.mouse.click(*at)
        async with asyncio.timeout(30.0):
            await first.wait()
        await page.mouse.click(*at)
        async with page.expect_navigation():
            clicked_twice.set()
        await expect(page.get_by_role("status")).to_contain_text("Published.")
        assert sent == ["POST"]
        # What is shown again can be sent again.
        await publish.click()
        await expect(page.get_by_role("status")).to_be_focused()
        assert sent == ["POST"] * 2
        await _check(visited, scripts=True)
    assert await messages(published) == [("numbers", b"1")] * 2


@pytest.mark.full
async def test_a_message_is_published_to_one_destination_of_a_pattern(
    service: Publishing, browser: Browser, published: Subscription
) -> None:
    async with visit(browser, service.page, scripts=False) as visited:
        page = visited.page
        form = page.get_by_role("form", name="Publish to Logs of every region")
        await page.get_by_role("link", name="Logs of every region").click()
        field = form.get_by_label("Destination")
        # The browser itself asks for one.
        await form.get_by_label("Message").fill('"warm"')
        await form.get_by_role("button", name="Publish").click()
        await expect(field).to_be_focused()
        await field.fill(f"{service.subject}.bills")
        await form.get_by_role("button", name="Publish").click()
        await expect(page.get_by_role("alert")).to_contain_text("destination Input should be one destination")
        await expect(field).to_have_attribute("aria-invalid", "true")
        assert await messages(published) == []
        await field.fill(f"{service.subject}.logs.eu")
        await form.get_by_role("button", name="Publish").click()
        await expect(page.get_by_role("status")).to_contain_text("Published.")
        await _check(visited, scripts=False)
    assert await messages(published) == [("eu", b"warm")]


@pytest.mark.full
async def test_axe_finds_nothing_in_an_outcome(service: Publishing, browser: Browser) -> None:
    async with visit(browser, service.page) as visited:
        page = visited.page
        form = page.get_by_role("form", name="Publish to Orders")
        await page.get_by_role("link", name="Orders").click()
        await form.get_by_label("Message").fill("{}")
        await form.get_by_role("button", name="Only validate").click()
        await expect(page.get_by_role("alert")).to_be_focused()
        assert await visited.obstacles() == {}


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
async def test_axe_finds_nothing(
    service: Publishing, browser: Browser, scheme: Literal["light", "dark"], width: int
) -> None:
    async with visit(browser, service.page, scheme=scheme, width=width) as visited:
        for form in await visited.page.locator("details").all():
            await form.evaluate("form => { form.open = true; }")
        assert await visited.obstacles() == {}


@pytest.mark.full
async def test_a_link_of_the_contents_opens_the_form(service: Publishing, browser: Browser) -> None:
    async with visit(browser, service.page, scripts=False) as visited:
        field = visited.page.get_by_role("form", name="Publish to Numbers").get_by_label("Message")
        await expect(field).not_to_be_visible()
        await visited.page.get_by_role("link", name="Numbers").click()
        await expect(field).to_be_visible()


@pytest.mark.parametrize("path", ["/form", pytest.param("/text", marks=pytest.mark.full)])
async def test_a_page_of_another_origin_cannot_publish(
    path: str, service: Publishing, browser: Browser, published: Subscription
) -> None:
    with AppServer.uvicorn(ATTACK, "--lifespan", "off", env={"TARGET": service.page}) as attacker:
        async with visit(browser, service.page, attacker.url) as visited:
            page = visited.page
            cookies = await page.context.cookies()
            assert {(each["name"], each["sameSite"]) for each in cookies} == {
                ("faststream_publish", "Strict")
            }
            # Another port of the same host is another origin, but the same site: the cookie is sent.
            async with page.expect_response(service.page) as answered:
                await page.goto(attacker.url + path, wait_until="commit")
            response = await answered.value
            assert response.status == 403
            assert "faststream_publish" in (await response.request.all_headers())["cookie"]
            await expect(page.get_by_role("alert")).to_contain_text("it comes from a page of another site")
    assert await messages(published) == []


@pytest.mark.full
async def test_a_reload_of_the_page_keeps_the_forms_of_other_windows(
    service: Publishing, browser: Browser, published: Subscription
) -> None:
    async with visit(browser, service.page) as visited:
        other = await visited.page.context.new_page()
        await other.goto(service.page)
        await other.reload()
        for number, page in enumerate((visited.page, other)):
            form = page.get_by_role("form", name="Publish to Numbers")
            await page.get_by_role("link", name="Numbers").click()
            await form.get_by_label("Message").fill(str(number))
            await form.get_by_role("button", name="Publish").click()
            await expect(page.get_by_role("status")).to_contain_text(re.compile("^Published"))
    assert await messages(published) == [("numbers", b"0"), ("numbers", b"1")]
