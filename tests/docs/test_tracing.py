"""docs/tracing.md: its code is the example, which exports the spans that the page shows."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import httpx

from tests.docs.blocks import ROOT, code_blocks, python_blocks
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer

PAGE = "docs/tracing.md"
EXAMPLE = (ROOT / "examples" / "tracing.py").read_text(encoding="utf-8")


def spans_in(output: str) -> list[dict[str, Any]]:
    """Return the spans that the console exporter printed between log lines."""
    decoder = json.JSONDecoder()
    starts = [match.start() for match in re.finditer(r"^\{$", output, re.MULTILINE)]
    return [decoder.raw_decode(output, start)[0] for start in starts]


def test_the_code_of_the_page_is_the_example() -> None:
    _, _, code = EXAMPLE.partition("\n\n")
    assert python_blocks(PAGE)["Tracing 1"].code == code


def test_the_example_exports_the_spans_that_the_page_shows(shared_nats: NatsServer) -> None:
    assert "`uvicorn examples.tracing:app`" in EXAMPLE
    server = AppServer.uvicorn(
        EXAMPLE,
        "--app-dir",
        str(ROOT),
        target="examples.tracing:app",
        env={"NATS_URL": shared_nats.url},
        ready_path="/readyz",
    )
    with server:
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert httpx.post(f"{server.url}/orders/tea").status_code == 202
        server.wait_output("tea ordered")
        server.terminate()
        assert server.wait() == -signal.SIGTERM
        spans = spans_in(server.output())
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    names = {span["context"]["span_id"]: span["name"] for span in spans}
    parents = {span["name"]: names.get(span["parent_id"]) for span in spans}
    page = code_blocks(PAGE, "text")["Tracing 1"].code
    documented: dict[str, str | None] = {}
    ancestors: list[str] = []
    for branch, name in re.findall(r"^([│├└─ ]*)(\S+ \S+)", page, re.MULTILINE):
        del ancestors[len(branch) // 4 :]
        documented[name] = ancestors[-1] if ancestors else None
        ancestors.append(name)
    assert parents == documented
