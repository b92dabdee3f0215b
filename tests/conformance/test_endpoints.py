"""The endpoints respond in the same way in every host, and the host handles all other requests."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
from faststream import AsyncAPI
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from prometheus_client import CollectorRegistry, Counter

from faststream_adapters import AsyncAPIRoute, HealthCheck
from tests.harness.asgi_calls import Client, http_scope
from tests.harness.clients import client
from tests.harness.hosts import TITLE, TOKEN, VERSION, HostApp, StartupFailedError, serving, websocket_refusal
from tests.harness.scrapes import BlockedCollector, scrape
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    import httpx
    from faststream.asgi.types import ASGIApp

    from tests.conformance.orders import Orders
    from tests.harness.hosts import Host, Served

PROBES = {
    "ping_path": "/ping",
    "liveness_path": "/livez",
    "readiness_path": "/health/ready",
    "startup_path": "/startupz",
}
PATHS = {**PROBES, "metrics_path": "/metrics", "status_path": "/status", "asyncapi_path": "/asyncapi"}
STATUS = {"/status": "text/html; charset=utf-8", "/status.json": "application/json"}
"""The status, which is never twice the same."""
DOCUMENTS = {
    "/asyncapi": "text/html; charset=utf-8",
    "/asyncapi.json": "application/json",
    "/asyncapi.yaml": "application/yaml",
    "/asyncapi/asyncapi.json": "application/json",
    "/asyncapi/asyncapi.yaml": "application/yaml",
}
ENDPOINTS = (
    *PATHS.values(),
    "/status.json",
    "/asyncapi.json",
    "/asyncapi.yaml",
    "/asyncapi/asyncapi.json",
    "/asyncapi/asyncapi.yaml",
)
METHODS = ("POST", "PUT", "PATCH", "DELETE")
NO_METRICS = {"name[]": "none"}
"""Selects no metrics, because the metrics of brokers change between two requests."""


def build(host: Host, orders: Orders, **options: Any) -> ASGIApp:
    return host.build(orders.broker, **{**PATHS, **options})


def parts(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """Return the parts of a response that have to be equal."""
    return response.status_code, response.content, dict(response.headers)


# --- responses ---


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_probes_respond_with_200_and_ok(host: Host, orders: Orders, method: str) -> None:
    async with serving(build(host, orders)) as served:
        for keyword in ("liveness_path", "readiness_path", "startup_path"):
            response = await served.http.request(method, PROBES[keyword])
            assert (response.status_code, response.text) == (200, "ok" if method == "GET" else ""), keyword
            assert response.headers["content-type"] == "text/plain; charset=utf-8", keyword
            assert response.headers["content-length"] == "2", keyword
            assert response.headers["cache-control"] == "no-store", keyword


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_probes_respond_with_503_and_the_code(host: Host, orders: Orders, method: str) -> None:
    async with client(build(host, orders)) as http:
        for keyword in ("liveness_path", "readiness_path", "startup_path"):
            response = await http.request(method, PROBES[keyword])
            expected = "not_started" if method == "GET" else ""
            assert (response.status_code, response.text) == (503, expected), keyword
            assert response.headers["content-type"] == "text/plain; charset=utf-8", keyword
            assert response.headers["content-length"] == str(len("not_started")), keyword
            assert response.headers["cache-control"] == "no-store", keyword


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_ping_responds_with_204_or_500_without_a_body(
    host: Host, orders: Orders, method: str
) -> None:
    app = build(host, orders)
    async with client(app) as http:
        response = await http.request(method, PROBES["ping_path"])
        assert (response.status_code, response.content) == (500, b"")
        assert (response.headers["content-length"], response.headers["cache-control"]) == ("0", "no-store")
        assert "content-type" not in response.headers
    async with serving(app) as served:
        response = await served.http.request(method, PROBES["ping_path"])
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers.keys().isdisjoint({"content-length", "content-type"})


async def test_probe_details_are_health_json(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, probe_details=True)) as served:
        response = await served.http.get(PROBES["readiness_path"])
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/health+json"
        assert response.headers["cache-control"] == "no-store"
        report = response.json()
        assert (report["status"], report["code"], report["state"]) == ("pass", "ok", ["running"])
        kinds = [check["componentType"] for check in report["checks"]["NatsBroker"]]
        assert kinds == ["broker", "subscriber"]


async def test_readiness_includes_the_checks_of_the_application(host: Host, orders: Orders) -> None:
    results = [True]
    database = HealthCheck("database", lambda: results[-1], timeout=5.0)
    mail = HealthCheck("mail", lambda: False, timeout=5.0)
    options = {"checks": [database, mail], "optional": [mail], "probe_details": True, "probe_timeout": 10.0}
    async with serving(build(host, orders, **options)) as served:
        for passes, status, code in [(True, 200, "ok"), (False, 503, "check_failed"), (True, 200, "ok")]:
            results.append(passes)
            async with asyncio.timeout(10):
                # A call for the metrics, which began before, may be in flight.
                response = await served.http.get(PROBES["readiness_path"])
                while response.status_code != status:  # pragma: no cover (seldom)
                    response = await served.http.get(PROBES["readiness_path"])
            report = response.json()
            assert report["code"] == code
            found = [(check["componentId"], check["status"]) for check in report["checks"]["HealthCheck"]]
            assert found == [("database", "pass" if passes else "fail"), ("mail", "warn")]
            assert await served.status(PROBES["liveness_path"]) == 200


async def test_a_scrape_whose_client_has_disconnected_is_dropped(host: Host, orders: Orders) -> None:
    with BlockedCollector() as blocked:
        app = build(host, orders, metrics_registry=blocked.registry)
        queries = ["", "name[]=waited&name[]=other"]
        clients = [Client(app, http_scope(PATHS["metrics_path"], query=query)) for query in queries]
        await blocked.has_begun()
        await eventually(lambda: all(client.waits for client in clients))
        for client in clients:
            client.disconnect()
        await asyncio.wait([client.status for client in clients])
        blocked.proceed.set()
        assert "waited 1.0" in (await scrape(app, f"{PATHS['metrics_path']}?name[]=waited")).text
        assert blocked.collections == 2


async def test_the_metrics_of_the_registry_are_served(host: Host, orders: Orders) -> None:
    registry = CollectorRegistry()
    Counter("teas", "Cups of tea.", registry=registry).inc(3)
    async with serving(build(host, orders, metrics_registry=registry)) as served:
        response = await served.http.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=")
        assert "teas_total 3.0" in response.text
        assert 'faststream_adapters_lifecycle_state{state="running"} 1.0' in response.text
        assert 'faststream_adapters_broker_up{broker="NatsBroker 1"} 1.0' in response.text


async def test_metrics_are_negotiated_with_the_scraper(host: Host, orders: Orders) -> None:
    registry = CollectorRegistry()
    Counter("teas", "Cups of tea.", registry=registry).inc(3)
    headers = {"accept": "application/openmetrics-text; version=1.0.0", "accept-encoding": "gzip"}
    async with serving(build(host, orders, metrics_registry=registry)) as served:
        for path in ("/metrics?name[]=teas_total", "/metrics/?name%5B%5D=teas_total"):
            response = await served.http.get(path, headers=headers)
            assert response.status_code == 200, path
            assert response.headers["content-encoding"] == "gzip", path
            assert response.headers["content-type"].startswith("application/openmetrics-text"), path
            assert response.text.splitlines()[-2:] == ["teas_total 3.0", "# EOF"], path


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_status_is_a_page_and_a_document(host: Host, orders: Orders, method: str) -> None:
    async with serving(build(host, orders)) as served:
        await orders.place()
        for path, content_type in STATUS.items():
            for url in (path, f"{path}/"):
                response = await served.http.request(method, url)
                assert response.status_code == 200, url
                assert response.headers["content-type"] == content_type, url
                assert response.headers["cache-control"] == "no-store", url
                assert (response.content == b"") == (method == "HEAD"), url
        if method == "GET":
            page = await served.text("/status")
            assert "All brokers reply" in page
            assert orders.subject in page
            document = (await served.http.get("/status.json")).json()
            assert (document["status"], document["state"]) == ("pass", ["running"])
            assert [each["received"] for each in document["subscribers"]] == [1]


async def test_the_status_is_shown_while_nothing_runs(host: Host, orders: Orders) -> None:
    async with client(build(host, orders)) as http:
        document = (await http.get("/status.json")).json()
        assert (document["code"], document["state"]) == ("not_started", ["stopped"])
        assert "Stopped" in (await http.get("/status")).text


async def follow_status_links(served: Served, path: str) -> None:
    for url in (path, f"{path}/"):
        page = await served.http.get(url)
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        links = re.findall(r'<a href="([^"#]+)" rel', page.text)
        assert len(links) == 3
        for link in links:
            assert await served.status(urljoin(str(page.url), link)) == 200, (url, link)


async def test_the_links_of_the_status_page_work(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        await follow_status_links(served, "/status")
    async with serving(build(host, orders), root_path="/svc") as served:
        await follow_status_links(served, "/svc/status")


async def test_the_docs_page_has_a_content_security_policy_and_working_links(
    host: Host, orders: Orders
) -> None:
    async with serving(build(host, orders)) as served:
        for path in ("/asyncapi", "/asyncapi/"):
            page = await served.http.get(path)
            assert page.status_code == 200
            assert page.headers["content-type"] == DOCUMENTS["/asyncapi"]
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert orders.subject in page.text
            await follow_links(served, page)


KINDS = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
    "yaml": "application/yaml",
}


async def follow_links(served: Served, page: httpx.Response) -> None:
    links = {link for link in re.findall(r'(?:href|src)="([^"#]+)"', page.text) if "://" not in link}
    assert {link.rpartition(".")[2] for link in links} == KINDS.keys()
    for link in links:
        url = urljoin(str(page.url), link)
        response = await served.http.get(url)
        assert response.status_code == 200, url
        assert response.headers["content-type"] == KINDS[link.rpartition(".")[2]], url


async def test_the_document_is_served_beside_the_page_and_below_it(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        responses = {path: await served.http.get(path) for path in DOCUMENTS}
    for path, response in responses.items():
        assert response.status_code == 200, path
        assert response.headers["content-type"] == DOCUMENTS[path], path
    document = responses["/asyncapi.json"].json()
    assert document["channels"][f"{orders.subject}:Accept"]["address"] == orders.subject
    assert document == responses["/asyncapi/asyncapi.json"].json()
    assert orders.subject in responses["/asyncapi.yaml"].text
    assert responses["/asyncapi.yaml"].content == responses["/asyncapi/asyncapi.yaml"].content


async def test_the_docs_are_not_sent_again_if_the_etag_matches(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        for path in DOCUMENTS:
            first = await served.http.get(path)
            again = await served.http.get(path, headers={"if-none-match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b""), path


async def test_the_docs_are_compressed_if_the_client_accepts_gzip(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        for path in DOCUMENTS:
            response = await served.http.get(path, headers={"accept-encoding": "gzip"})
            plain = await served.http.get(path, headers={"accept-encoding": "identity"})
            assert response.headers["content-encoding"] == "gzip", path
            assert "content-encoding" not in plain.headers, path
            assert int(response.headers["content-length"]) < len(response.content), path
            assert response.content == plain.content, path


@pytest.mark.needs("info")
async def test_the_document_has_the_title_and_version_of_the_host(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        info = (await served.http.get("/asyncapi.json")).json()["info"]
        assert (info["title"], info["version"]) == (TITLE, VERSION)


async def test_a_specification_overrides_the_title_of_the_host(host: Host, orders: Orders) -> None:
    specification = AsyncAPI(title="Tea house", version="7.0")
    app = host.build(orders.broker, asyncapi_path="/asyncapi", specification=specification)
    async with serving(app) as served:
        document = (await served.http.get("/asyncapi.json")).json()
    assert (document["info"]["title"], document["info"]["version"]) == ("Tea house", "7.0")
    assert orders.subject in str(document["channels"])


async def test_the_path_of_the_document_can_be_set(host: Host, orders: Orders) -> None:
    route = AsyncAPIRoute("/spec", asyncapi_json_path="/elsewhere/document.json")
    async with serving(host.build(orders.broker, asyncapi_path=route)) as served:
        for path in ("/spec", "/elsewhere/document.json", "/elsewhere/document.yaml"):
            assert await served.status(path) == 200, path
        assert await served.status("/spec.json") == 404


@pytest.mark.needs("openapi")
@pytest.mark.parametrize("shown", [False, True])
async def test_the_openapi_document_lists_the_endpoints_if_requested(
    host: Host, orders: Orders, shown: bool
) -> None:
    async with serving(build(host, orders, include_in_schema=shown)) as served:
        paths = (await served.http.get(host.openapi)).json()["paths"]
    documented = {path: set(methods) for path, methods in paths.items() if path not in {"/hello", "/state"}}
    listed = [*PATHS.values(), "/status.json", "/asyncapi.json", "/asyncapi.yaml"] if shown else []
    assert documented == {path: {"get"} for path in listed}


# --- requests ---


async def test_head_responds_like_get_without_a_body(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, metrics_registry=CollectorRegistry())) as served:
        for path in set(ENDPOINTS) - set(STATUS):
            get, head = [await served.http.request(each, path, params=NO_METRICS) for each in ("GET", "HEAD")]
            assert parts(head) == (get.status_code, b"", dict(get.headers)), path


async def test_other_methods_get_405_with_the_allowed_methods(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        for path in ENDPOINTS:
            for method in METHODS:
                response = await served.http.request(method, path)
                assert response.status_code == 405, (method, path)
                allowed = {word.strip() for word in response.headers["allow"].split(",")}
                # The host decides whether OPTIONS is supported.
                assert allowed - {"OPTIONS"} == {"GET", "HEAD"}, (method, path)


async def test_a_trailing_slash_is_ignored(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, metrics_registry=CollectorRegistry())) as served:
        for path in (*PATHS.values(), "/asyncapi.json"):
            for method in ("GET", "HEAD"):
                with_slash = await served.http.request(method, f"{path}/", params=NO_METRICS)
                without = await served.http.request(method, path, params=NO_METRICS)
                assert with_slash.status_code == without.status_code, (method, path)
                if path not in {"/asyncapi", "/status"}:  # the links in the page are relative to the path
                    assert parts(with_slash) == parts(without), (method, path)


async def test_endpoints_respond_below_a_root_path(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders), root_path="/svc") as served:
        await check_endpoints(served, below="/svc")
        for path in ("/svc/asyncapi", "/svc/asyncapi/"):
            await follow_links(served, await served.http.get(path))


@pytest.mark.needs("bare_paths")
async def test_endpoints_respond_if_the_path_lacks_the_root_path(host: Host, orders: Orders) -> None:
    """Some servers put the root path in front of the path, others do not."""
    async with serving(build(host, orders), root_path="/svc") as served:
        await check_endpoints(served)


async def check_endpoints(served: Served, below: str = "") -> None:
    for keyword, path in PROBES.items():
        expected = 204 if keyword == "ping_path" else 200
        assert await served.status(below + path) == expected, path
        assert await served.status(f"{below}{path}/") == expected, path
    for path in ("/metrics", *STATUS, *DOCUMENTS):
        assert await served.status(below + path) == 200, path


@pytest.mark.needs("prefixes")
async def test_endpoints_respond_below_a_prefix(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, prefix="/internal")) as served:
        await check_endpoints(served, below="/internal")
        for path in ENDPOINTS:
            assert await served.status(path) == 404, path
        for path in ("/internal/asyncapi", "/internal/asyncapi/"):
            await follow_links(served, await served.http.get(path))
        await follow_status_links(served, "/internal/status")


@pytest.mark.needs("prefixes")
async def test_endpoints_respond_below_a_root_path_and_a_prefix(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, prefix="/internal"), root_path="/svc") as served:
        assert await served.status("/svc/internal/ping") == 204
        assert await served.status("/svc/ping") == 404
        await follow_links(served, await served.http.get("/svc/internal/asyncapi"))


@pytest.mark.parametrize("denial", [False, True], ids=["close", "response"])
async def test_websockets_are_refused(host: Host, orders: Orders, denial: bool) -> None:
    async with serving(build(host, orders)) as served:
        for path in ENDPOINTS:
            sent = await websocket_refusal(served.app, path, denial=denial)
            assert sent, path
            kind = sent[0]["type"]
            assert kind == "websocket.close" or (denial and kind == "websocket.http.response.start"), path


# --- the other requests of the host ---


async def test_the_host_handles_other_paths_as_without_the_adapter(host: Host, orders: Orders) -> None:
    requests = [
        *(("GET", path) for path in ("/hello", "/nothing", "/", "/ping/deeper", "/asyncapix", "/health")),
        *(("POST", path) for path in ("/hello", "/nothing")),
    ]
    async with serving(build(host, orders)) as with_adapter, client(host.plain(HostApp())) as plain:
        for method, path in requests:
            with_endpoints, without = (
                await with_adapter.http.request(method, path),
                await plain.request(method, path),
            )
            assert parts(with_endpoints) == parts(without), (method, path)
        assert await with_adapter.text("/hello") == "hello"
        assert await with_adapter.status("/nothing") == 404
        assert await with_adapter.status("/asyncapi/nothing") == 404


async def test_endpoints_without_a_path_are_not_served(host: Host, orders: Orders) -> None:
    async with serving(host.build(orders.broker, ping_path="/ping")) as served:
        assert await served.status("/ping") == 204
        for path in set(ENDPOINTS) - {"/ping"}:
            assert await served.status(path) == 404, path


async def test_probes_report_that_the_lifespan_never_ran(
    host: Host,
    orders: Orders,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with client(build(host, orders, probe_details=True)) as http:
        for _ in range(2):
            for keyword, path in PROBES.items():
                response = await http.get(path)
                assert response.status_code == (500 if keyword == "ping_path" else 503), path
                assert response.json()["code"] == "not_started", path
        assert (await http.get("/asyncapi.json")).status_code == 200
    assert caplog.text.count("its lifespan never ran") == len(PROBES)


@pytest.mark.needs("guards")
async def test_guards_apply_to_all_endpoints(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, guarded=True)) as served:
        page = await served.http.get("/asyncapi", headers=TOKEN)
        [style] = re.findall(r'href="([^"]+\.css)"', page.text)
        for path in (*ENDPOINTS, urljoin("/asyncapi", style)):
            for method in ("GET", "HEAD"):
                for url in (path, f"{path}/"):
                    assert await served.status(url, method) in {401, 403}, (method, url)
                expected = 204 if path == PROBES["ping_path"] else 200
                assert await served.status(path, method, headers=TOKEN) == expected, (method, path)
        assert await served.text("/hello") == "hello"


@pytest.mark.needs("guards", "composes", "lifespans")
async def test_guards_can_apply_to_some_endpoints(host: Host, orders: Orders) -> None:
    from faststream_adapters import BrokerLifespan
    from tests.harness.hosts import AdapterUse

    states: list[str] = []
    lifespan = BrokerLifespan(orders.broker, on_state_change=lambda _, new: states.append(new))
    app = host.compose(
        HostApp(),
        AdapterUse([lifespan], {"readiness_path": "/ready"}),
        AdapterUse([lifespan], {"asyncapi_path": "/asyncapi"}, guarded=True),
    )
    async with serving(app) as served:
        assert await served.status("/ready") == 200
        assert await served.status("/asyncapi.json") in {401, 403}
        assert await served.status("/asyncapi.json", headers=TOKEN) == 200
    assert states == ["starting", "running", "draining", "stopped"]


# --- invalid paths ---


def test_two_endpoints_with_the_same_path_are_refused(host: Host) -> None:
    with pytest.raises(SetupError, match="'/same' is served already"):
        host.build(NatsBroker(), ping_path="/same", readiness_path="/same/")


def test_a_path_without_a_leading_slash_is_refused(host: Host) -> None:
    with pytest.raises(SetupError, match="'ping' must start with"):
        host.build(NatsBroker(), ping_path="ping")


@pytest.mark.needs("detects_paths")
async def test_a_path_that_the_host_serves_is_refused(host: Host, orders: Orders) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises((SetupError, StartupFailedError), match="/hello"):
            await stack.enter_async_context(serving(host.build(orders.broker, ping_path="/hello")))
