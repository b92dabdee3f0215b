"""The documentation of the AsyncAPI endpoints lists the keywords and the sizes of the code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from faststream_adapters import AsyncAPIRoute
from faststream_adapters._asyncapi.assets import viewer
from faststream_adapters._asyncapi.view import PageKeywords, View
from tests.docs.blocks import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping


TEXT = (ROOT / "docs/asyncapi.md").read_text(encoding="utf-8")


def test_the_page_lists_all_keywords() -> None:
    table = TEXT.partition("| Keyword |")[2].partition("\n\n")[0]
    listed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    refused = {"try_it_out_path", "try_it_out_plugin_url"}
    of_the_route = {"description", "tags", "unique_id", "include_in_schema", "asyncapi_json_path"}
    assert listed - {"Keyword"} == of_the_route | PageKeywords.__annotations__.keys() - refused
    route = AsyncAPIRoute("/")
    for name, default in {
        "include_in_schema": False,
        "description": None,
        "tags": None,
        "unique_id": None,
    }.items():
        assert getattr(route, name) is default
    options: Mapping[str, object] = View().options
    for name in ("sidebar", "info", "servers", "operations", "messages", "schemas", "errors"):
        assert options[name] is True


def test_the_page_has_the_sizes_of_the_viewer() -> None:
    script = viewer()
    assert script is not None
    scope = {"type": "http", "headers": [(b"accept-encoding", b"br")]}
    identity = {"type": "http", "headers": []}
    assert "The viewer has 350 kB, and travels as 110 kB" in TEXT
    assert 300_000 < len(script.content.response_for(identity).body) < 400_000
    assert len(script.content.response_for(scope).body) < 115_000
