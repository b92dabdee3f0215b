"""From targets and keywords to a lifespan and endpoints: what every host shares."""

from __future__ import annotations

import json
from typing import Any

import faststream
import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI
from prometheus_client import CollectorRegistry, Gauge

from faststream_adapters import AsgiFastStream, AsyncAPIRoute, BrokerLifespan
from faststream_adapters.hosting import (
    EndpointKeywords,
    HostInfo,
    HostKeywords,
    docs_for,
    endpoints_for,
    hosting_for,
    lifespan_for,
    split_keywords,
)
from faststream_adapters.lifespan import LifespanKeywords
from tests.asgi_calls import http_scope, request

UNREACHABLE = "nats://127.0.0.1:1"


def test_keywords_are_split() -> None:
    lifespan, endpoints = split_keywords(
        {"startup": "background", "drain_delay": 1.0, "ping_path": "/ping", "probe_ttl": 2.0}
    )
    assert lifespan == {"startup": "background", "drain_delay": 1.0}
    assert endpoints == {"ping_path": "/ping", "probe_ttl": 2.0}
    assert split_keywords({}) == ({}, {})


def test_every_keyword_has_one_place() -> None:
    ours, theirs = LifespanKeywords.__annotations__, EndpointKeywords.__annotations__
    assert not ours.keys() & theirs.keys()
    everything: Any = dict.fromkeys(HostKeywords.__annotations__)
    lifespan, endpoints = split_keywords(everything)
    assert lifespan.keys() == ours.keys()
    assert endpoints.keys() == theirs.keys()


def test_the_lifespan_keywords_are_those_of_the_lifespan() -> None:
    code = BrokerLifespan.__init__.__code__
    names = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
    assert set(LifespanKeywords.__annotations__) == set(names)


def test_an_unknown_keyword_lists_the_known_ones() -> None:
    unknown: Any = {"ping_path": "/ping", "health_path": "/health"}
    with pytest.raises(TypeError, match=r"Unknown keyword 'health_path'\. Known are: .*ping_path") as raised:
        split_keywords(unknown)
    for name in HostKeywords.__annotations__:
        assert name in str(raised.value)


def test_a_lifespan_brings_its_own_keywords() -> None:
    lifespan = BrokerLifespan(NatsBroker(UNREACHABLE))
    assert lifespan_for((lifespan,), {}) is lifespan
    with pytest.raises(SetupError, match=r"startup, consume: give these to the BrokerLifespan itself"):
        lifespan_for((lifespan,), {"startup": "background", "consume": False})


def test_brokers_get_a_lifespan() -> None:
    brokers = NatsBroker(UNREACHABLE), NatsBroker(UNREACHABLE)
    lifespan = lifespan_for(brokers, {"startup": "background", "optional": [brokers[1]], "drain_delay": 1.0})
    assert lifespan.brokers == brokers
    assert lifespan.startup == "background"
    assert lifespan.optional == (brokers[1],)
    assert lifespan.drain_delay == 1.0
    assert lifespan.state == "stopped"


def test_an_app_gets_a_lifespan() -> None:
    app = faststream.FastStream(NatsBroker(UNREACHABLE))
    lifespan = lifespan_for((app,), {})
    assert lifespan.app is app
    later = NatsBroker(UNREACHABLE)
    app.add_broker(later)
    assert lifespan.brokers == tuple(app.brokers)
    assert later in lifespan.brokers


@pytest.mark.parametrize(
    ("targets", "kinds"),
    [
        ((), "nothing"),
        (("nats://localhost",), "str"),
        ((faststream.FastStream(), NatsBroker(UNREACHABLE)), "FastStream, NatsBroker"),
        ((BrokerLifespan(NatsBroker(UNREACHABLE)), NatsBroker(UNREACHABLE)), "BrokerLifespan, NatsBroker"),
        ((faststream.FastStream(), faststream.FastStream()), "FastStream, FastStream"),
    ],
)
def test_other_targets_are_an_error(targets: Any, kinds: str) -> None:
    with pytest.raises(SetupError, match=rf"one or more brokers, or one FastStream app.*, not {kinds}\."):
        lifespan_for(targets, {})


def test_a_broker_twice_is_an_error() -> None:
    broker = NatsBroker(UNREACHABLE)
    with pytest.raises(SetupError, match="twice"):
        lifespan_for((broker, broker), {})


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
def test_keywords_that_cannot_work(keywords: Any, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        lifespan_for((NatsBroker(UNREACHABLE),), keywords)


@pytest.mark.parametrize("off", [None, ""])
def test_every_path_is_off_until_it_is_named(off: Any) -> None:
    lifespan = BrokerLifespan(NatsBroker(UNREACHABLE))
    paths = [name for name in EndpointKeywords.__annotations__ if name.endswith("_path")]
    assert len(paths) == 5
    assert endpoints_for(lifespan, {}) == []
    keywords: Any = dict.fromkeys(paths, off)
    assert endpoints_for(lifespan, keywords) == []


async def test_each_path_has_its_endpoint() -> None:
    registry = CollectorRegistry()
    Gauge("depth", "Depth.", registry=registry)
    keywords = EndpointKeywords(
        ping_path="/p",
        liveness_path="/l",
        readiness_path="/r",
        startup_path="/s",
        metrics_path="/m",
        metrics_registry=registry,
    )
    routes = dict(endpoints_for(BrokerLifespan(NatsBroker(UNREACHABLE)), keywords))
    replies = {path: await request(app, http_scope()) for path, app in routes.items()}
    # The lifespan has not run.
    assert {path: reply.status for path, reply in replies.items()} == {
        "/p": 500,
        "/l": 503,
        "/r": 503,
        "/s": 503,
        "/m": 200,
    }
    assert b"depth 0.0" in replies["/m"].body


async def test_probe_details() -> None:
    lifespan = BrokerLifespan(NatsBroker(UNREACHABLE))
    [(_, probe)] = endpoints_for(lifespan, {"readiness_path": "/r", "probe_details": True})
    assert (await request(probe, http_scope())).headers["content-type"] == "application/health+json"


@pytest.mark.parametrize("keywords", [{"probe_timeout": 0.0}, {"probe_timeout": -1.0}, {"probe_ttl": -1.0}])
def test_probe_keywords_that_cannot_work(keywords: Any) -> None:
    keywords["ping_path"] = "/p"
    with pytest.raises(SetupError, match="must be a number of seconds"):
        endpoints_for(BrokerLifespan(NatsBroker(UNREACHABLE)), keywords)


def test_hosting_is_a_lifespan_and_routes() -> None:
    broker = NatsBroker(UNREACHABLE)
    hosting = hosting_for(
        (broker,), {"startup": "background", "ping_path": "/ping", "asyncapi_path": "/docs"}
    )
    assert hosting.lifespan.brokers == (broker,)
    assert hosting.lifespan.startup == "background"
    assert [path for path, _ in hosting.routes] == ["/ping", "/docs.json", "/docs.yaml", "/docs"]
    assert hosting_for((hosting.lifespan,), {}).lifespan is hosting.lifespan
    assert list(hosting_for((broker,), {"asyncapi_path": None}).routes) == []


def test_hosting_with_an_unknown_keyword() -> None:
    unknown: Any = {"asyncapi_path": "/docs", "health_path": "/health"}
    with pytest.raises(TypeError, match="Unknown keyword 'health_path'"):
        hosting_for((NatsBroker(UNREACHABLE),), unknown)


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
async def test_whose_title_the_docs_have(
    targets: str, keywords: Any, info: HostInfo | None, title: str
) -> None:
    broker = NatsBroker(UNREACHABLE)
    target = (
        broker if targets == "broker" else faststream.FastStream(broker, specification=AsyncAPI(title="App"))
    )
    keywords["asyncapi_path"] = "/docs"
    hosting = hosting_for((target,), keywords, info)
    document = json.loads((await request(dict(hosting.routes)["/docs.json"], http_scope())).body)
    assert document["info"]["title"] == title
    assert document["info"]["version"] == ("3" if title == "Host" else "0.1.0")


async def test_docs_have_a_document_beside_them() -> None:
    routes = dict(docs_for("/docs", NatsBroker(UNREACHABLE)))
    assert list(routes) == ["/docs", "/docs.json", "/docs.yaml"]
    types = [(await request(app, http_scope())).headers["content-type"] for app in routes.values()]
    assert types == ["text/html; charset=utf-8", "application/json", "application/yaml"]


def test_paths_of_the_document() -> None:
    broker = NatsBroker(UNREACHABLE)
    elsewhere = AsyncAPIRoute("/docs", asyncapi_json_path="/schema.json")
    assert list(dict(docs_for(elsewhere, broker))) == ["/docs", "/schema.json", "/schema.yaml"]
    assert list(dict(docs_for(AsyncAPIRoute("/docs", asyncapi_json_path=None), broker))) == ["/docs"]
    assert list(dict(docs_for("/docs/", broker))) == ["/docs/", "/docs.json", "/docs.yaml"]


def test_every_host_keyword_reaches_the_app() -> None:
    app = AsgiFastStream(NatsBroker(UNREACHABLE), startup="background", consume=False, supervise=False)
    lifespan = app.broker_lifespan
    assert (lifespan.startup, lifespan.consume, lifespan.supervise) == ("background", False, False)


def test_an_asgi_app_as_target_brings_its_lifespan() -> None:
    app = AsgiFastStream(NatsBroker(UNREACHABLE), startup="background")
    assert lifespan_for((app,), {}) is app.broker_lifespan
    with pytest.raises(SetupError, match="consume: give these to the BrokerLifespan"):
        lifespan_for((app,), {"consume": False})


@pytest.mark.parametrize(
    ("name", "path"),
    [("specification", "asyncapi_path"), ("metrics_registry", "metrics_path")],
)
def test_a_keyword_without_its_path_is_refused(name: str, path: str) -> None:
    keywords: Any = {name: AsyncAPI()}
    with pytest.raises(SetupError, match=f"{name} has no effect without {path}"):
        hosting_for((NatsBroker(UNREACHABLE),), keywords)
