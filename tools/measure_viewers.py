"""Measure the AsyncAPI page beside AsyncAPI's React component, Swagger UI and Redoc, in Chromium.

Each page shows 20 and 150 operations with models of the same fields. The packages come from npm, into a
directory outside the repository:

    npm install --prefix /tmp/viewers --ignore-scripts @asyncapi/react-component swagger-ui-dist redoc
    python tools/measure_viewers.py /tmp/viewers

The result is a table in Markdown. All files are compressed with gzip and served from this machine, so loading
takes no time, and what is measured is the browser's work.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from playwright.async_api import Browser, Page, async_playwright
from pydantic import create_model
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from faststream_adapters import make_asyncapi_asgi
from tests.docs.browser.browsing import ARGUMENTS, CHROMIUM
from tests.docs.browser.service import Parcel

SIZES = (20, 150)
ROUNDS = 3
STRICT = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PACKAGES = {
    "react": ("AsyncAPI's React component", "@asyncapi/react-component"),
    "swagger": ("Swagger UI", "swagger-ui-dist"),
    "redoc": ("Redoc", "redoc"),
}
# The number of elements, including those in shadow roots, if an operation is shown.
_SHOWN = """(text) => {
  function* deep(root) {
    for (const element of root.querySelectorAll("*")) {
      yield element;
      if (element.shadowRoot) yield* deep(element.shadowRoot);
    }
  }
  let elements = 0, found = false;
  for (const element of deep(document)) {
    elements += 1;
    const own = element.children.length === 0 && element.textContent.includes(text);
    found ||= own && element.checkVisibility();
  }
  return found ? elements : 0;
}"""
# The page is usable when the browser has painted it and reacts again.
_IDLE = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"


# --- the service ---


# The address of the first operation. Swagger UI renders the last of many only when it is scrolled to.
FIRST = "region-0-sent"


def models(size: int) -> list[Any]:
    """Return as many models of their own as there are operations."""
    return [create_model(f"Parcel{number}", __base__=Parcel) for number in range(size)]


def asyncapi(size: int, **page: Any) -> Any:
    """Return the AsyncAPI page of a service of this size."""
    broker = NatsBroker()
    for number, model in enumerate(models(size)):
        broker.publisher(f"region-{number}-sent", schema=model, description=f"Parcels of region {number}")
    return make_asyncapi_asgi(AsyncAPI(broker, title="Parcels"), **page)


def openapi(size: int) -> dict[str, Any]:
    """Return an OpenAPI document with the same models."""
    app = FastAPI(title="Parcels")
    for number, model in enumerate(models(size)):

        async def send(parcel: Any) -> None:
            raise NotImplementedError

        send.__annotations__["parcel"] = model
        address = f"region-{number}-sent"
        app.post(f"/{address}", summary=address, description=f"Parcels of region {number}")(send)
    return app.openapi()


SWAGGER = """<!DOCTYPE html>
<link rel="stylesheet" href="/npm/swagger-ui-dist/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="/npm/swagger-ui-dist/swagger-ui-bundle.js"></script>
<script src="start.js"></script>"""
START = "SwaggerUIBundle({ url: 'openapi.json', dom_id: '#swagger-ui' });"
REDOC = """<!DOCTYPE html>
<div id="redoc"></div>
<script src="/npm/redoc/bundles/redoc.standalone.js"></script>
<script src="start-redoc.js"></script>"""
START_REDOC = "Redoc.init('openapi.json', {}, document.getElementById('redoc'));"


def application(packages: Path) -> Starlette:
    """Return the application with all pages, each with and without the strict policy."""
    component = "/npm/@asyncapi/react-component"
    react = {
        "asyncapi_js_url": f"{component}/browser/standalone/index.js",
        "asyncapi_css_url": f"{component}/styles/default.min.css",
    }

    def html(text: str) -> Any:
        async def respond(request: Request) -> Response:
            strict = {"Content-Security-Policy": STRICT} if request.url.path.startswith("/strict") else {}
            return HTMLResponse(text, headers=strict)

        return respond

    def script(text: str) -> Any:
        return lambda _: Response(text, media_type="text/javascript")

    routes: list[Any] = [Mount("/npm", StaticFiles(directory=packages / "node_modules"))]
    for size in SIZES:
        document = openapi(size)
        for prefix in ("", "/strict"):
            policy = {"csp": STRICT} if prefix else {}
            routes += [
                Mount(f"{prefix}/own/{size}", asyncapi(size, **policy)),
                Mount(f"{prefix}/react/{size}", asyncapi(size, **react, **policy)),
                Route(f"{prefix}/swagger/{size}/", html(SWAGGER)),
                Route(f"{prefix}/redoc/{size}/", html(REDOC)),
            ]
            for viewer in ("swagger", "redoc"):
                folder = f"{prefix}/{viewer}/{size}"
                routes += [
                    Route(f"{folder}/openapi.json", lambda _, document=document: JSONResponse(document)),
                    Route(f"{folder}/start.js", script(START)),
                    Route(f"{folder}/start-redoc.js", script(START_REDOC)),
                ]
    return Starlette(routes=routes, middleware=[Middleware(GZipMiddleware)])


# --- the browser ---


class Row(NamedTuple):
    """What was measured of one viewer with one size."""

    kilobytes: float
    seconds: float
    elements: int
    without_scripts: bool
    with_policy: bool


@asynccontextmanager
async def opened(
    browser: Browser, url: str, *, scripts: bool = True
) -> AsyncIterator[tuple[Page, list[int]]]:
    """Open a URL with an empty cache; the second value collects the transferred bytes."""
    context = await browser.new_context(java_script_enabled=scripts, viewport={"width": 1280, "height": 900})
    try:
        page, sizes = await context.new_page(), list[int]()
        session = await context.new_cdp_session(page)
        await session.send("Network.enable")
        session.on("Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"])))
        await page.goto(url, wait_until="commit")
        yield page, sizes
    finally:
        await context.close()


async def shown(page: Page, text: str, patience: float = 60.0) -> int:
    """Return the number of elements when the text has appeared, or 0 if it never does."""
    handle = await page.wait_for_function(_SHOWN, arg=text, timeout=patience * 1000)
    return int(await handle.json_value())


async def appears(browser: Browser, url: str, text: str, *, scripts: bool = True) -> bool:
    """Return whether a text appears on the page within ten seconds."""
    async with opened(browser, url, scripts=scripts) as (page, _):
        try:
            if not scripts:
                await page.wait_for_load_state("load")
                return text in await page.locator("body").inner_text()
            return bool(await shown(page, text, 10.0))
        except Exception:  # noqa: BLE001 (it does not appear)
            return False


async def measure(browser: Browser, base: str, viewer: str, size: int) -> Row:
    """Measure one viewer with one size."""
    path, text = f"{viewer}/{size}/", FIRST
    times, elements, transferred = list[float](), 0, 0
    for _ in range(ROUNDS):
        async with opened(browser, f"{base}/{path}") as (page, sizes):
            await shown(page, text)
            times.append(await page.evaluate(_IDLE))
            await page.wait_for_load_state("networkidle")
            elements, transferred = await shown(page, text), sum(sizes)
    return Row(
        transferred / 1000,
        median(times) / 1000,
        elements,
        await appears(browser, f"{base}/{path}", text, scripts=False),
        await appears(browser, f"{base}/strict/{path}", text),
    )


async def main(packages: Path) -> None:
    """Print the table."""
    config = uvicorn.Config(application(packages), port=0, log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 (uvicorn offers no event)
        await asyncio.sleep(0.1)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    names = {"own": "This package"}
    for viewer, (name, package) in PACKAGES.items():
        version = json.loads((packages / "node_modules" / package / "package.json").read_text())["version"]
        names[viewer] = f"{name} {version}"
    print(
        "| | Transferred | Without JavaScript | Under the strict policy | 20: usable after, elements "
        "| 150: usable after, elements |\n| --- | --- | --- | --- | --- | --- |"
    )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for viewer, name in names.items():
            small, large = [await measure(browser, f"http://{host}:{port}", viewer, size) for size in SIZES]
            cells = [f"{row.seconds:.1f} s, {row.elements:,}" for row in (small, large)]
            answers = ["yes" if each else "no" for each in (small.without_scripts, small.with_policy)]
            print("|", " | ".join([name, f"{small.kilobytes:,.0f} kB", *answers, *cells]), "|", flush=True)
        print("\nChromium", browser.version)
        await browser.close()
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
