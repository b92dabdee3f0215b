"""The assembly of targets and keywords into a lifespan and routes, which all hosts share."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from typing import Any

import faststream
import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from prometheus_client import CollectorRegistry, Gauge

from faststream_adapters import (
    AsgiFastStream,
    AsyncAPIRoute,
    BrokerLifespan,
    FastStream,
    FastStreamMiddleware,
    make_asyncapi_asgi,
    make_metrics_asgi,
)
from faststream_adapters._hosting.assembly import HostInfo, assemble
from faststream_adapters._hosting.options import AdapterKeywords, EndpointKeywords
from faststream_adapters.fastapi import FastStreamRouter
from faststream_adapters.litestar import FastStreamPlugin
from faststream_adapters.quart import QuartFastStream
from tests.harness.asgi_calls import http_scope, request

UNREACHABLE = "nats://127.0.0.1:1"


def test_an_unknown_keyword_is_refused_with_a_list_of_known_ones() -> None:
    unknown: Any = {"ping_path": "/ping", "health_path": "/health"}
    with pytest.raises(
        TypeError,
        match=r"Unknown keyword 'health_path'\. Known keywords: .*ping_path",
    ) as raised:
        assemble([NatsBroker(UNREACHABLE)], unknown)
    for name in AdapterKeywords.__annotations__:
        assert name in str(raised.value)


@pytest.mark.parametrize(
    ("make", "given", "meant"),
    [
        (AsgiFastStream, "asgi_route", "asgi_routes"),
        (AsgiFastStream, "lifspan", "lifespan"),
        (FastStream().as_asgi, "asgi_route", "asgi_routes"),
        (FastStreamMiddleware, "ap", "app"),
        (FastStreamRouter, "prefx", "prefix"),
        (FastStreamPlugin, "guard", "guards"),
        (QuartFastStream, "blueprnt", "blueprint"),
        (make_metrics_asgi, "regstry", "registry"),
        (partial(make_asyncapi_asgi, NatsBroker()), "specificaton", "specification"),
        (partial(AsyncAPIRoute, "/docs"), "asyncapi_json", "asyncapi_json_path"),
    ],
)
def test_an_unknown_keyword_can_mean_any_parameter(make: Any, given: str, meant: str) -> None:
    targets = [None] if make is FastStreamMiddleware else []
    with pytest.raises(TypeError, match=rf"Unknown keyword '{given}'\. Did you mean '{meant}'\?"):
        make(*targets, **{given: None})


def test_lifespan_keywords_with_a_lifespan_are_refused() -> None:
    lifespan = BrokerLifespan(NatsBroker(UNREACHABLE))
    assert assemble([lifespan], {}).broker_lifespan is lifespan
    with pytest.raises(SetupError, match=r"startup, consume: pass these to the BrokerLifespan itself"):
        assemble([lifespan], {"startup": "background", "consume": False})


def test_a_lifespan_is_created_for_brokers() -> None:
    brokers = NatsBroker(UNREACHABLE), NatsBroker(UNREACHABLE)
    keywords: AdapterKeywords = {"startup": "background", "optional": [brokers[1]], "drain_delay": 1.0}
    lifespan = assemble(brokers, keywords).broker_lifespan
    assert lifespan.brokers == brokers
    assert lifespan.startup == "background"
    assert lifespan.optional == (brokers[1],)
    assert lifespan.drain_delay == 1.0
    assert lifespan.state == "stopped"


def test_a_lifespan_is_created_for_an_app() -> None:
    app = faststream.FastStream(NatsBroker(UNREACHABLE))
    lifespan = assemble([app], {}).broker_lifespan
    assert lifespan.app is app
    later = NatsBroker(UNREACHABLE)
    app.add_broker(later)
    assert lifespan.brokers == tuple(app.brokers)
    assert later in lifespan.brokers


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"startup": "lazy"}, '"strict" or "background", not \'lazy\''),
        ({"drain_delay": -1}, "drain_delay must be"),
        ({"shutdown_timeout": -0.1}, "shutdown_timeout must be"),
        ({"startup_timeout": float("nan")}, "startup_timeout must be"),
        ({"optional": [NatsBroker(UNREACHABLE)]}, "pass it as a target too"),
    ],
)
def test_invalid_lifespan_keywords_are_refused(keywords: Any, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        assemble([NatsBroker(UNREACHABLE)], keywords)


@pytest.mark.parametrize("off", [None, ""])
def test_no_endpoint_is_assembled_without_a_path(off: Any) -> None:
    lifespan = BrokerLifespan(NatsBroker(UNREACHABLE))
    paths = [name for name in EndpointKeywords.__annotations__ if name.endswith("_path")]
    assert len(paths) == 6
    assert assemble([lifespan], {}).endpoints == []
    keywords: Any = dict.fromkeys(paths, off)
    assert assemble([lifespan], keywords).endpoints == []


async def test_each_path_keyword_adds_an_endpoint() -> None:
    registry = CollectorRegistry()
    Gauge("depth", "Depth.", registry=registry)
    keywords = AdapterKeywords(
        ping_path="/p",
        liveness_path="/l",
        readiness_path="/r",
        startup_path="/s",
        metrics_path="/m",
        metrics_registry=registry,
        status_path="/t",
    )
    routes = dict(assemble([NatsBroker(UNREACHABLE)], keywords).endpoints)
    replies = {path: await request(app, http_scope()) for path, app in routes.items()}
    # The lifespan has not run.
    assert {path: reply.status for path, reply in replies.items()} == {
        "/p": 500,
        "/l": 503,
        "/r": 503,
        "/s": 503,
        "/m": 200,
        "/t": 200,
        "/t.json": 200,
    }
    assert b"depth 0.0" in replies["/m"].body


@pytest.mark.parametrize(
    ("path", "as_json"),
    [("/status", "/status.json"), ("/a/status/", "/a/status.json"), ("/", "/status.json")],
)
def test_the_status_has_a_document_beside_the_page(path: str, as_json: str) -> None:
    routes = assemble([NatsBroker(UNREACHABLE)], {"status_path": path}).endpoints
    assert [path for path, _ in routes] == [path, as_json]
    with pytest.raises(SetupError, match=f"'{as_json}' is served already"):
        assemble([NatsBroker(UNREACHABLE)], {"status_path": path, "ping_path": as_json})


@pytest.mark.parametrize(
    ("status", "metrics", "docs", "links"),
    [
        ("/status", "/metrics", "/docs", ["status/../metrics", "status/../docs"]),
        ("/a/status", "/metrics", AsyncAPIRoute("/a/docs"), ["status/../../metrics", "status/../docs"]),
        ("/", "/metrics", None, ["metrics"]),
        ("/a", "/", "/a/b c:d", ["a/..", "a/b%20c%3Ad"]),
        ("/status", None, None, []),
    ],
)
async def test_the_status_links_to_what_else_is_served(
    status: str, metrics: str | None, docs: Any, links: list[str]
) -> None:
    keywords = AdapterKeywords(
        status_path=status,
        metrics_path=metrics,
        asyncapi_path=docs,
        metrics_registry=CollectorRegistry() if metrics else None,
    )
    [page, _] = assemble([NatsBroker(UNREACHABLE)], keywords).endpoints[-2:]
    reply = await request(page[1], http_scope(status))
    assert re.findall(r'<a href="([^?"#]+)" rel', reply.body.decode()) == links


async def test_probe_details_apply_to_the_probes() -> None:
    lifespan = BrokerLifespan(NatsBroker(UNREACHABLE))
    [(_, probe)] = assemble([lifespan], {"readiness_path": "/r", "probe_details": True}).endpoints
    assert (await request(probe, http_scope())).headers["content-type"] == "application/health+json"


@pytest.mark.parametrize("keywords", [{"probe_timeout": 0.0}, {"probe_timeout": -1.0}, {"probe_ttl": -1.0}])
def test_invalid_probe_keywords_are_refused(keywords: Any) -> None:
    keywords["ping_path"] = "/p"
    with pytest.raises(SetupError, match="must be a number of seconds"):
        assemble([NatsBroker(UNREACHABLE)], keywords)


def test_an_assembly_contains_a_lifespan_and_routes() -> None:
    broker = NatsBroker(UNREACHABLE)
    assembly = assemble((broker,), {"startup": "background", "ping_path": "/ping", "asyncapi_path": "/docs"})
    assert assembly.broker_lifespan.brokers == (broker,)
    assert assembly.broker_lifespan.startup == "background"
    assert [path for path, _ in assembly.routes()] == ["/ping", "/docs.json", "/docs.yaml", "/docs"]
    assert assemble((assembly.broker_lifespan,), {}).broker_lifespan is assembly.broker_lifespan
    assert list(assemble((broker,), {"asyncapi_path": None}).routes()) == []


def test_an_unknown_keyword_beside_a_known_one_is_refused() -> None:
    unknown: Any = {"asyncapi_path": "/docs", "health_path": "/health"}
    with pytest.raises(TypeError, match="Unknown keyword 'health_path'"):
        assemble((NatsBroker(UNREACHABLE),), unknown)


@pytest.mark.parametrize(
    ("targets", "keywords", "info", "title"),
    [
        ("broker", {}, None, "FastStream"),
        ("broker", {}, HostInfo(), "FastStream"),
        ("broker", {}, HostInfo(title="Host", version="3"), "Host"),
        ("app", {}, HostInfo(title="Host"), "App"),
        ("app", {"specification": AsyncAPI(title="Own")}, HostInfo(title="Host"), "Own"),
        ("broker", {"specification": AsyncAPI(title="Own")}, None, "Own"),
    ],
)
async def test_the_title_of_the_docs(targets: str, keywords: Any, info: HostInfo | None, title: str) -> None:
    broker = NatsBroker(UNREACHABLE)
    target = (
        broker if targets == "broker" else faststream.FastStream(broker, specification=AsyncAPI(title="App"))
    )
    keywords["asyncapi_path"] = "/docs"
    assembly = assemble((target,), keywords)
    document = json.loads((await request(dict(assembly.routes(info))["/docs.json"], http_scope())).body)
    assert document["info"]["title"] == title
    assert document["info"]["version"] == ("3" if title == "Host" else "0.1.0")


async def test_the_docs_include_the_document_as_json_and_yaml() -> None:
    routes = dict(assemble([NatsBroker(UNREACHABLE)], {"asyncapi_path": "/docs"}).docs())
    assert list(routes) == ["/docs", "/docs.json", "/docs.yaml"]
    types = [(await request(app, http_scope())).headers["content-type"] for app in routes.values()]
    assert types == ["text/html; charset=utf-8", "application/json", "application/yaml"]


def test_the_paths_of_the_document() -> None:
    broker = NatsBroker(UNREACHABLE)
    elsewhere = AsyncAPIRoute("/docs", asyncapi_json_path="/schema.json")
    alone = AsyncAPIRoute("/docs", asyncapi_json_path=None)
    assert list(dict(assemble([broker], {"asyncapi_path": elsewhere}).docs())) == [
        "/docs",
        "/schema.json",
        "/schema.yaml",
    ]
    assert list(dict(assemble([broker], {"asyncapi_path": alone}).docs())) == ["/docs"]
    assert list(dict(assemble([broker], {"asyncapi_path": "/docs/"}).docs())) == [
        "/docs/",
        "/docs.json",
        "/docs.yaml",
    ]


def test_lifespan_keywords_reach_the_lifespan_of_an_app() -> None:
    app = AsgiFastStream(NatsBroker(UNREACHABLE), startup="background", consume=False, supervise=False)
    lifespan = app.broker_lifespan
    assert (lifespan.startup, lifespan.consume, lifespan.supervise) == ("background", False, False)


def test_the_lifespan_of_an_asgi_app_is_used() -> None:
    app = AsgiFastStream(NatsBroker(UNREACHABLE), startup="background")
    assert assemble([app], {}).broker_lifespan is app.broker_lifespan
    with pytest.raises(SetupError, match="consume: pass these to the BrokerLifespan"):
        assemble([app], {"consume": False})


@pytest.mark.parametrize(
    ("name", "path"),
    [("specification", "asyncapi_path"), ("metrics_registry", "metrics_path")],
)
def test_a_keyword_without_its_path_is_refused(name: str, path: str) -> None:
    keywords: Any = {name: AsyncAPI()}
    with pytest.raises(SetupError, match=f"{name} has no effect without {path}"):
        assemble((NatsBroker(UNREACHABLE),), keywords)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8081", ":8081", "localhost:0", "[::]:8081", "unix:/run/app.sock"]
)
def test_the_endpoints_are_not_in_the_host_if_they_have_an_address_of_their_own(address: str) -> None:
    keywords = AdapterKeywords(readiness_path="/r", asyncapi_path="/docs", management_bind=address)
    assembly = assemble([NatsBroker(UNREACHABLE)], keywords)
    assert assembly.endpoints == []
    assert [path for path, _ in assembly.routes()] == ["/docs.json", "/docs.yaml", "/docs"]


@pytest.mark.parametrize("off", [None, ""])
def test_the_endpoints_are_in_the_host_without_an_address(off: Any) -> None:
    assembly = assemble([NatsBroker(UNREACHABLE)], {"readiness_path": "/r", "management_bind": off})
    assert [path for path, _ in assembly.endpoints] == ["/r"]


@pytest.mark.parametrize("address", [8081, "8081", "localhost", "::1:8081", "unix:", "fd://3", ":http", True])
def test_what_is_no_address_is_refused(address: Any) -> None:
    with pytest.raises(SetupError) as raised:
        assemble([NatsBroker(UNREACHABLE)], {"readiness_path": "/r", "management_bind": address})
    assert str(raised.value) == (
        f"management_bind must be an address to listen on, not {address!r}: "
        "host:port, [::1]:port or unix:/dir/name.sock."
    )


def test_an_address_without_an_endpoint_is_refused() -> None:
    with pytest.raises(SetupError) as raised:
        assemble([NatsBroker(UNREACHABLE)], {"asyncapi_path": "/docs", "management_bind": ":8081"})
    assert str(raised.value) == (
        "management_bind has no effect without a path to serve there: set "
        "ping_path or liveness_path or readiness_path or startup_path or metrics_path or status_path."
    )


def test_an_endpoint_at_an_address_of_its_own_may_have_the_path_of_the_docs() -> None:
    keywords = AdapterKeywords(readiness_path="/", asyncapi_path="/")
    with pytest.raises(SetupError, match="'/' is served already"):
        assemble([NatsBroker(UNREACHABLE)], keywords)
    assemble([NatsBroker(UNREACHABLE)], {**keywords, "management_bind": ":8081"})
    with pytest.raises(SetupError, match="'/r' is served already"):
        assemble(
            [NatsBroker(UNREACHABLE)],
            {"readiness_path": "/r", "ping_path": "/r/", "management_bind": ":8081"},
        )


def test_an_address_needs_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        ImportError, match=r"This needs uvicorn: install it with .*faststream-adapters\[server\]"
    ):
        assemble([NatsBroker(UNREACHABLE)], {"readiness_path": "/r", "management_bind": ":8081"})
