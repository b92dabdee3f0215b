"""Visit pages with a real browser that is restricted to their origin, and record what goes wrong."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page, Route

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "No chromium found on PATH: install Debian's package `chromium` or Google Chrome."
# Without name resolution the browser cannot reach its vendor's services either.
ARGUMENTS = ("--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")

SCREENSHOTS = os.environ.get("FASTSTREAM_ADAPTERS_SCREENSHOTS")

# Version 2.0.0 of the viewer logs this about an attribute that it has set itself.
_VIEWER_WARNING = "unknown attribute 'resolved-theme' was ignored."

_RECORD_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
});
"""
# The viewer renders into a shadow root, which queries and `innerText` do not enter.
_DEEP = """
function* deep(root) {
  for (const element of root.querySelectorAll("*")) {
    yield element;
    if (element.shadowRoot) yield* deep(element.shadowRoot);
  }
}
"""
_VISIBLE = f"""() => {{
  {_DEEP}
  let text = document.body.innerText;
  for (const element of deep(document)) {{
    if (!element.shadowRoot || !element.checkVisibility()) continue;
    for (const child of element.shadowRoot.children) text += "\\n" + (child.innerText ?? "");
  }}
  return text;
}}"""
_ATTRIBUTES = f"""(name) => {{
  {_DEEP}
  return [...deep(document)].filter((each) => each.hasAttribute(name)).map((each) => each.getAttribute(name));
}}"""
_FOCUSED = """() => {
  let at = document.activeElement;
  while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
  const appearance = () => {
    // Finish animations, so that only final states are compared.
    for (const moving of at.getAnimations({ subtree: true })) moving.finish();
    return [null, "::before", "::after"].map((part) => {
      const style = getComputedStyle(at, part);
      return [style.outline, style.boxShadow, style.border, style.backgroundColor].join();
    }).join();
  };
  const focused = appearance();
  at.blur();
  const blurred = appearance();
  at.focus({ focusVisible: true, preventScroll: true });
  return {
    tag: at.localName,
    text: (at.innerText || at.getAttribute("aria-label") || at.title || at.placeholder || "").trim(),
    visible: focused !== blurred,
  };
}"""
_LIGHTNESS = """() => {
  const there = document.elementsFromPoint(1, innerHeight / 2);
  const colours = there.map((element) => getComputedStyle(element).backgroundColor);
  const opaque = colours.find((colour) => !colour.endsWith(", 0)"));
  return Math.max(...opaque.match(/[0-9.]+/g).slice(0, 3).map(Number));
}"""

_VIOLATIONS = """async (options) => {
  const { violations } = await axe.run({ resultTypes: ["violations"], ...options });
  return Object.fromEntries(violations.map((each) => [each.id, each.nodes.map((node) => node.html)]));
}"""


@dataclass
class Visit:
    """An open page, and what has gone wrong on it so far."""

    page: Page
    elsewhere: list[str] = field(default_factory=list)
    """Requests to other origins, all of which were blocked."""
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def violations(self) -> list[str]:
        """Return the violations of the page's content security policy."""
        found: list[str] = await self.page.evaluate("window.violations")
        return found

    async def check(self) -> None:
        """Check that nothing has gone wrong."""
        problems = {
            "elsewhere": self.elsewhere,
            "failed": self.failed,
            "console": [message for message in self.console if not message.endswith(_VIEWER_WARNING)],
            "errors": self.errors,
            "violations": await self.violations(),
        }
        assert not any(problems.values()), problems

    async def visible(self) -> str:
        """Return the visible text, including that in shadow roots."""
        text: str = await self.page.evaluate(_VISIBLE)
        return text

    async def screenshot(self, name: str) -> None:
        """Save a screenshot for review if `FASTSTREAM_ADAPTERS_SCREENSHOTS` names a directory."""
        if SCREENSHOTS:  # pragma: no cover (it is slow, and no test uses the file)
            await self.page.screenshot(path=Path(SCREENSHOTS, name), full_page=True)

    async def attributes(self, name: str) -> list[str]:
        """Return the values of an attribute on the whole page, including shadow roots."""
        values: list[str] = await self.page.evaluate(_ATTRIBUTES, name)
        return values

    async def elements(self) -> int:
        """Return the number of elements, including those in shadow roots."""
        number: int = await self.page.evaluate(f"() => {{ {_DEEP} return [...deep(document)].length; }}")
        return number

    async def wait_for(self, condition: str) -> None:
        """Wait until an expression is true.

        Playwright's own function for this evaluates it inside the page, whose security policy refuses that.
        """
        async with asyncio.timeout(30):
            while not await self.page.evaluate(condition):  # noqa: ASYNC110 (the page can only be polled)
                await asyncio.sleep(0.02)

    async def focused(self) -> dict[str, Any]:
        """Return the tag and text of the focused element, and whether its focus is visible."""
        found: dict[str, Any] = await self.page.evaluate(_FOCUSED)
        return found

    async def overflow(self) -> int:
        """Return the number of pixels by which the page is wider than the window."""
        root = "document.documentElement"
        pixels: int = await self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
        return pixels

    async def obstacles(self, **options: Any) -> dict[str, list[str]]:
        """Return the rules of axe that the page violates, with the elements in question.

        Args:
            options: Options of `axe.run()`.
        """
        if not await self.page.evaluate("'axe' in window"):
            # Here, because all other tests need no axe.
            from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]  # ships no types

            await self.page.evaluate(AXE_SCRIPT)
        found: dict[str, list[str]] = await self.page.evaluate(_VIOLATIONS, options)
        return found

    async def lightness(self) -> int:
        """Return the lightness of the middle of the page's left edge, from 0 to 255."""
        found: int = await self.page.evaluate(_LIGHTNESS)
        return found


@asynccontextmanager
async def visit(
    browser: Browser,
    url: str,
    *others: str,
    scheme: Literal["light", "dark"] = "light",
    width: int = 1280,
    scripts: bool = True,
) -> AsyncIterator[Visit]:
    """Open a URL in a fresh profile.

    Args:
        browser: The browser.
        url: The URL of the page, from whose origin it may load.
        others: URLs of further origins from which it may load.
        scheme: The preferred color scheme of the browser.
        width: The width of the window.
        scripts: Whether scripts run.
    """
    origins = "|".join("{0.scheme}://{0.netloc}/".format(urlsplit(each)) for each in (url, *others))
    context = await browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, java_script_enabled=scripts
    )
    try:
        page = await context.new_page()
        visited = Visit(page)

        async def refuse(route: Route) -> None:
            visited.elsewhere.append(route.request.url)
            await route.abort()

        await context.route(re.compile(f"^(?!{origins})"), refuse)
        await context.add_init_script(_RECORD_VIOLATIONS)
        page.on("requestfailed", lambda request: visited.failed.append(request.url))
        page.on("console", lambda message: visited.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: visited.errors.append(str(error)))
        page.on("dialog", lambda dialog: visited.errors.append(f"dialog: {dialog.message}"))
        response = await page.goto(url)
        assert response is not None
        assert response.status == 200
        yield visited
    finally:
        await context.close()
