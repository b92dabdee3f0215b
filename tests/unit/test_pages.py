"""The elements, the document and the policy that all pages share."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from faststream_adapters._asgi.markup import Html, join, safe_link, tag
from faststream_adapters._asgi.shell import Shell, policy, shared_file
from tests.harness.pages import Page

HOSTILE = "</style></title></script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


# --- elements ---


def test_texts_and_attributes_are_escaped() -> None:
    assert tag("p", "<b>", tag("i", "&"), None, 1, title='"<') == (
        '<p title="&quot;&lt;">&lt;b&gt;<i>&amp;</i>1</p>'
    )
    assert join("<", Html("<br>"), None) == "&lt;<br>"


def test_attributes_without_a_value_and_names_with_hyphens() -> None:
    assert tag("details", open_=True, hidden=False, id=None, tabindex=0, aria_label="a") == (
        '<details open tabindex="0" aria-label="a"></details>'
    )


def test_void_elements_are_not_closed() -> None:
    assert tag("input", name="a", required=True) == '<input name="a" required>'


@pytest.mark.parametrize("url", ["https://a.example", "HTTP://a.example/?b=%22", "mailto:a@b.example"])
def test_links_to_other_sites(url: str) -> None:
    assert safe_link(url, "<b>") == f'<a href="{url}" rel="noreferrer">&lt;b&gt;</a>'


@pytest.mark.parametrize("url", ["javascript:alert(1)", " https://a", "data:text/html,a", "", "//a.example"])
def test_a_link_that_could_run_a_script_is_text(url: str) -> None:
    assert safe_link(url, "<b>") == "&lt;b&gt;"


# --- the document ---


def test_a_page_is_a_complete_document() -> None:
    refresh = tag("meta", http_equiv="refresh", content="5")
    page = Shell().page("Status", tag("h1", "Status"), head=[refresh]).decode()
    assert page.startswith('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">')
    assert '<meta http-equiv="refresh" content="5">' in page
    parsed = Page(page)
    assert [parsed.names.count(name) for name in ("html", "title", "main", "h1", "style", "nav")] == [
        1,
        1,
        1,
        1,
        1,
        0,
    ]
    assert '<a class="skip" href="#main">' in page
    assert not {"script", "img"} & {*parsed.names}


def test_a_page_with_a_table_of_contents() -> None:
    page = Shell().page("Status", tag("h1", "Status"), nav=tag("ul")).decode()
    assert Page(page).names.count("nav") == 1
    assert page.index("<nav ") < page.index("<main ")


def test_hostile_titles_and_contents_are_texts() -> None:
    page = Shell().page(HOSTILE, tag("h1", HOSTILE), HOSTILE).decode()
    parsed = Page(page)
    assert not {"script", "img"} & {*parsed.names}
    assert parsed.text.count("<script>alert(1)</script>") == 3


def test_a_page_that_loads_nothing_has_a_policy_for_its_own_style_only() -> None:
    shell = Shell("p { color: red }")
    [style] = re.findall("<style>(.*)</style>", shell.page("a").decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert style == shared_file("base.css") + "p { color: red }"
    assert shell.headers == {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def test_a_page_with_forms_may_send_them_to_its_own_origin() -> None:
    headers = Shell(forms=True).headers
    assert "form-action 'self'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "same-origin"
    assert "unsafe" not in headers["Content-Security-Policy"]


def test_a_policy_lists_the_sources() -> None:
    assert policy({"style-src": ["'self'", "https://a.example"]}) == (
        "default-src 'none'; style-src 'self' https://a.example; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
