"""docs/endpoints.md: the endpoints on the management server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.docs.blocks import at_nats, load, python_blocks, served
from tests.harness.management import fetch

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.harness.servers.nats import NatsServer

BLOCKS = python_blocks("docs/endpoints.md")
ALONE = "Endpoints 1"
MANAGEMENT = "Management server 1"
PATHS = ("/livez", "/readyz", "/startupz", "/metrics")


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {ALONE, MANAGEMENT}


async def test_an_application_mounts_endpoints(
    shared_nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_KEY", "secret")
    message = {"channel": "orders", "message": "tea"}
    async with served(load(at_nats(BLOCKS[ALONE].code, shared_nats.url), tmp_path).app) as client:
        assert (await client.get("/health")).status_code == 204
        assert (await client.get("/startupz")).text == "ok"
        assert "faststream_adapters_ready 1.0" in (await client.get("/metrics")).text
        assert (await client.post("/publish/", json=message)).status_code == 403
        published = await client.post("/publish/", json=message, headers={"X-Operator-Key": "secret"})
        assert published.json()["reply"] == "accepted tea"


async def test_the_endpoints_are_at_their_address(
    shared_nats: NatsServer, tmp_path: Path, free_address: str
) -> None:
    code = at_nats(BLOCKS[MANAGEMENT].code, shared_nats.url).replace("0.0.0.0:8081", free_address)
    async with served(load(code, tmp_path).app) as client:
        for path in PATHS:
            response = await fetch(free_address, path)
            assert response is not None
            assert response.status_code == 200
            assert (await client.get(path)).status_code == 404
