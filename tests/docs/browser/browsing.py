"""A real browser that reaches one origin only, and notes whatever a page should not do."""

from __future__ import annotations

import re
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page, Route

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "There is no chromium on PATH: install Debian's package `chromium`, or Google Chrome."
# Without these names to resolve, not even the browser's own services are reached.
ARGUMENTS = ("--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")

# What version 2.0.0 of the viewer says of an attribute that it has set itself.
_OLD_VIEWER = "unknown attribute 'resolved-theme' was ignored."

_LISTEN = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI}`);
});
"""
# The viewer renders into a shadow root, which queries and `innerText` do not look into.
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
  const look = () => {
    // What moves is looked at where it comes to rest.
    for (const moving of at.getAnimations({ subtree: true })) moving.finish();
    return [null, "::before", "::after"].map((part) => {
      const style = getComputedStyle(at, part);
      return [style.outline, style.boxShadow, style.border, style.backgroundColor].join();
    }).join();
  };
  const focused = look();
  at.blur();
  const blurred = look();
  at.focus({ focusVisible: true, preventScroll: true });
  return {
    tag: at.localName,
    text: (at.innerText || at.getAttribute("aria-label") || at.title || at.placeholder || "").trim(),
    seen: focused !== blurred,
  };
}"""
_LIGHTNESS = """() => {
  const there = document.elementsFromPoint(1, innerHeight / 2);
  const colours = there.map((element) => getComputedStyle(element).backgroundColor);
  const seen = colours.find((colour) => !colour.endsWith(", 0)"));
  return Math.max(...seen.match(/[0-9.]+/g).slice(0, 3).map(Number));
}"""


@dataclass
class Visit:
    """A page that was opened, and what went wrong since."""

    page: Page
    elsewhere: list[str] = field(default_factory=list)
    """Requests to other origins; none was let through."""
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    async def violations(self) -> list[str]:
        """Return the violations of the page's policy."""
        found: list[str] = await self.page.evaluate("window.violations")
        return found

    async def check(self) -> None:
        """Check that nothing went wrong."""
        wrong = {
            "elsewhere": self.elsewhere,
            "failed": self.failed,
            "console": [said for said in self.console if not said.endswith(_OLD_VIEWER)],
            "errors": self.errors,
            "violations": await self.violations(),
        }
        assert not any(wrong.values()), wrong

    async def visible(self) -> str:
        """Return the text that can be seen, with that in shadow roots."""
        text: str = await self.page.evaluate(_VISIBLE)
        return text

    async def attributes(self, name: str) -> list[str]:
        """Return the values of an attribute, wherever on the page."""
        values: list[str] = await self.page.evaluate(_ATTRIBUTES, name)
        return values

    async def focused(self) -> dict[str, Any]:
        """Return what has the focus: its kind, its text, and whether one can see that it has the focus."""
        found: dict[str, Any] = await self.page.evaluate(_FOCUSED)
        return found

    async def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        root = "document.documentElement"
        pixels: int = await self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
        return pixels

    async def lightness(self) -> int:
        """Return how light the middle of the page's left edge is, from 0 to 255."""
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
        url: The URL; nothing is loaded from any other origin …
        others: … but from these.
        scheme: What the user likes better.
        width: The width of the window.
        scripts: Whether scripts run.
    """
    origins = "|".join("{0.scheme}://{0.netloc}/".format(urlsplit(each)) for each in (url, *others))
    context = await browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, java_script_enabled=scripts
    )
    try:
        page = await context.new_page()
        seen = Visit(page)

        async def refuse(route: Route) -> None:
            seen.elsewhere.append(route.request.url)
            await route.abort()

        await context.route(re.compile(f"^(?!{origins})"), refuse)
        await context.add_init_script(_LISTEN)
        page.on("requestfailed", lambda request: seen.failed.append(request.url))
        page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("dialog", lambda dialog: seen.errors.append(f"dialog: {dialog.message}"))
        response = await page.goto(url)
        assert response is not None
        assert response.status == 200
        yield seen
    finally:
        await context.close()
