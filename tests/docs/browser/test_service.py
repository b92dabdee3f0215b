"""The service that the browser visits, tested in this process without a browser."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.browser.service import APPS, HOSTILE, PLAIN, create
from tests.harness.hosts import serving

if TYPE_CHECKING:
    from tests.harness.servers.nats import NatsServer


@pytest.mark.parametrize("name", APPS)
async def test_every_host_serves_the_page(
    name: str, shared_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", shared_nats.url)
    monkeypatch.setenv("SERVICE_HOST", name)
    monkeypatch.setenv("SERVICE_PAGE", json.dumps({"csp": "default-src 'none'"}))
    async with serving(create()) as served:
        page = await served.http.get(APPS[name].page)
        links = re.findall(r'<([^>]+)>; rel="service-desc"', page.headers["link"])
        documents = [await served.http.get(str(page.url.join(link))) for link in links]
    assert page.status_code == 200
    kinds = [document.headers["content-type"] for document in documents]
    assert kinds == ["application/json", "application/yaml"]
    assert documents[0].json()["info"]["title"] == PLAIN.title
    assert f"<title>{PLAIN.title} AsyncAPI</title>" in page.text
    assert page.headers["content-security-policy"] == "default-src 'none'"


async def test_hostile_models_and_further_subscribers_are_documented(
    shared_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", shared_nats.url)
    monkeypatch.setenv("SERVICE_TEXTS", "hostile")
    monkeypatch.setenv("SERVICE_SUBSCRIBERS", "2")
    async with serving(create()) as served:
        document = (await served.http.get("/asyncapi.json")).json()
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses >= {"parcels.region-0.sent", "parcels.region-1.sent"}
    assert HOSTILE.title in {schema["title"] for schema in document["components"]["schemas"].values()}


def test_a_library_can_be_made_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://localhost:4222")
    monkeypatch.setenv("SERVICE_WITHOUT", "made_up")
    monkeypatch.setitem(sys.modules, "made_up", sys)
    create()
    with pytest.raises(ImportError):
        __import__("made_up")
