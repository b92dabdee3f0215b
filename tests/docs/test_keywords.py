"""docs/endpoints.md and docs/lifespan.md: the tables of keywords match the signatures and the options."""

from __future__ import annotations

import inspect
import re

from faststream_adapters import BrokerLifespan
from faststream_adapters._endpoints.options import ProbeKeywords
from faststream_adapters._hosting.options import AdapterKeywords, EndpointKeywords
from faststream_adapters._lifecycle.options import LifespanKeywords
from faststream_adapters._utils.options import declared
from tests.docs.blocks import ROOT

ENDPOINTS = (ROOT / "docs" / "endpoints.md").read_text(encoding="utf-8")
LIFESPAN = (ROOT / "docs" / "lifespan.md").read_text(encoding="utf-8")


def _rows(text: str) -> dict[str, list[str]]:
    """Parse the tables of a page.

    Returns:
        The cells after the first one in each row, by each name in the row's first cell.
    """
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, *others = (cell.strip() for cell in line.strip("|").split(" | "))
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", first), others)
    return rows


def test_the_table_of_lifespan_keywords_matches_the_signature() -> None:
    rows = _rows(LIFESPAN)
    parameters = inspect.signature(BrokerLifespan).parameters
    keywords = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert list(rows) == list(keywords)
    for name, default in keywords.items():
        if name != "startup_timeout":
            assert rows[name][0].strip("`") == str(default).replace("strict", '"strict"')
        assert rows[name][-1] == declared(LifespanKeywords)[name].text


def test_the_table_of_probe_keywords_matches_the_options() -> None:
    rows = _rows(ENDPOINTS)
    schema = {"include_in_schema", "description", "tags", "unique_id"}
    keywords_of_probes = {name for cells in rows.values() for name in re.findall(r"^`(\w+)`$", cells[0])}
    keywords_of_probes = {name for name in keywords_of_probes if not name.startswith("make_")} | {
        "ok_status",
        "fail_status",
    }
    assert keywords_of_probes == set(ProbeKeywords.__annotations__) - schema


def test_the_table_of_endpoint_keywords_matches_the_options() -> None:
    paths = {name for name in AdapterKeywords.__annotations__ if name.endswith("_path")}
    probes = {name for name in EndpointKeywords.__annotations__ if name.startswith("probe_")}
    rows = _rows(ENDPOINTS)
    assert set(rows) == paths | probes | {"max_handler_age"}
    for name in (*probes, "max_handler_age"):
        assert rows[name][-1] == declared(EndpointKeywords)[name].text
    assert {
        name for name in AdapterKeywords.__annotations__ if f"`{name}" not in ENDPOINTS + LIFESPAN
    } == set()
