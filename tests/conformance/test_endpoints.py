"""What our endpoints answer, the same in every host, and what stays the host's."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
from faststream import AsyncAPI
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker
from prometheus_client import CollectorRegistry, Counter

from faststream_adapters import AsyncAPIRoute
from tests.hosts import TITLE, TOKEN, VERSION, Own, StartupFailedError, serving, websocket_refusal
from tests.support import client

if TYPE_CHECKING:
    import httpx
    from faststream.asgi.types import ASGIApp

    from tests.conformance.orders import Orders
    from tests.hosts import Host, Served

PROBES = {
    "ping_path": "/ping",
    "liveness_path": "/livez",
    "readiness_path": "/health/ready",
    "startup_path": "/startupz",
}
PATHS = {**PROBES, "metrics_path": "/metrics", "asyncapi_path": "/asyncapi"}
DOCUMENTS = {
    "/asyncapi": "text/html; charset=utf-8",
    "/asyncapi.json": "application/json",
    "/asyncapi.yaml": "application/yaml",
    "/asyncapi/asyncapi.json": "application/json",
    "/asyncapi/asyncapi.yaml": "application/yaml",
}
OURS = (
    *PATHS.values(),
    "/asyncapi.json",
    "/asyncapi.yaml",
    "/asyncapi/asyncapi.json",
    "/asyncapi/asyncapi.yaml",
)
METHODS = ("POST", "PUT", "PATCH", "DELETE")
NO_METRICS = {"name[]": "none"}
"""Two answers with the metrics of brokers differ when a round trip was made meanwhile."""


def build(host: Host, orders: Orders, **options: Any) -> ASGIApp:
    return host.build(orders.broker, **{**PATHS, **options})


def told(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """Return all that an answer says."""
    return answer.status_code, answer.content, dict(answer.headers)


# --- what they answer ---


async def test_probes_say_204_and_nothing_else(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        for path in PROBES.values():
            answer = await served.http.get(path)
            assert (answer.status_code, answer.content) == (204, b""), path
            assert answer.headers["cache-control"] == "no-store", path
            assert "content-length" not in answer.headers, path


async def test_details_are_json(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, probe_details=True)) as served:
        answer = await served.http.get(PROBES["readiness_path"])
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/health+json"
        assert answer.headers["cache-control"] == "no-store"
        report = answer.json()
        assert (report["status"], report["code"], report["state"]) == ("pass", "ok", ["running"])
        kinds = [check["componentType"] for check in report["checks"]["NatsBroker"]]
        assert kinds == ["broker", "subscriber"]


async def test_metrics_are_those_of_the_registry(host: Host, orders: Orders) -> None:
    registry = CollectorRegistry()
    Counter("teas", "Cups of tea.", registry=registry).inc(3)
    async with serving(build(host, orders, metrics_registry=registry)) as served:
        answer = await served.http.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert "teas_total 3.0" in answer.text
        assert 'faststream_adapters_lifecycle_state{state="running"} 1.0' in answer.text
        assert 'faststream_adapters_broker_up{broker="NatsBroker 1"} 1.0' in answer.text


async def test_metrics_are_as_the_scraper_wants_them(host: Host, orders: Orders) -> None:
    registry = CollectorRegistry()
    Counter("teas", "Cups of tea.", registry=registry).inc(3)
    headers = {"accept": "application/openmetrics-text; version=1.0.0", "accept-encoding": "gzip"}
    async with serving(build(host, orders, metrics_registry=registry)) as served:
        for path in ("/metrics?name[]=teas_total", "/metrics/?name%5B%5D=teas_total"):
            answer = await served.http.get(path, headers=headers)
            assert answer.status_code == 200, path
            assert answer.headers["content-encoding"] == "gzip", path
            assert answer.headers["content-type"].startswith("application/openmetrics-text"), path
            assert answer.text.splitlines()[-2:] == ["teas_total 3.0", "# EOF"], path


async def test_the_docs_page_has_a_policy_and_all_that_it_links_to(host: Host, orders: Orders) -> None:
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
        answer = await served.http.get(url)
        assert answer.status_code == 200, url
        assert answer.headers["content-type"] == KINDS[link.rpartition(".")[2]], url


async def test_the_document_is_beside_the_page_and_below_it(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        answers = {path: await served.http.get(path) for path in DOCUMENTS}
    for path, answer in answers.items():
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == DOCUMENTS[path], path
    document = answers["/asyncapi.json"].json()
    assert document["channels"][f"{orders.subject}:Accept"]["address"] == orders.subject
    assert document == answers["/asyncapi/asyncapi.json"].json()
    assert orders.subject in answers["/asyncapi.yaml"].text
    assert answers["/asyncapi.yaml"].content == answers["/asyncapi/asyncapi.yaml"].content


async def test_the_docs_are_not_sent_twice_to_who_has_them(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        for path in DOCUMENTS:
            first = await served.http.get(path)
            again = await served.http.get(path, headers={"if-none-match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b""), path


async def test_the_docs_travel_compressed_to_who_can_read_that(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        for path in DOCUMENTS:
            answer = await served.http.get(path, headers={"accept-encoding": "gzip"})
            plain = await served.http.get(path, headers={"accept-encoding": "identity"})
            assert answer.headers["content-encoding"] == "gzip", path
            assert "content-encoding" not in plain.headers, path
            assert int(answer.headers["content-length"]) < len(answer.content), path
            assert answer.content == plain.content, path


@pytest.mark.needs("info")
async def test_the_document_has_the_title_and_version_of_the_host(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        info = (await served.http.get("/asyncapi.json")).json()["info"]
        assert (info["title"], info["version"]) == (TITLE, VERSION)


async def test_a_specification_takes_the_place_of_the_hosts(host: Host, orders: Orders) -> None:
    specification = AsyncAPI(title="Tea house", version="7.0")
    app = host.build(orders.broker, asyncapi_path="/asyncapi", specification=specification)
    async with serving(app) as served:
        document = (await served.http.get("/asyncapi.json")).json()
    assert (document["info"]["title"], document["info"]["version"]) == ("Tea house", "7.0")
    assert orders.subject in str(document["channels"])


async def test_the_document_can_have_a_path_of_its_own(host: Host, orders: Orders) -> None:
    route = AsyncAPIRoute("/spec", asyncapi_json_path="/elsewhere/document.json")
    async with serving(host.build(orders.broker, asyncapi_path=route)) as served:
        for path in ("/spec", "/elsewhere/document.json", "/elsewhere/document.yaml"):
            assert await served.status(path) == 200, path
        assert await served.status("/spec.json") == 404


@pytest.mark.needs("openapi")
@pytest.mark.parametrize("shown", [False, True])
async def test_the_hosts_openapi_lists_them_when_asked(host: Host, orders: Orders, shown: bool) -> None:
    async with serving(build(host, orders, include_in_schema=shown)) as served:
        paths = (await served.http.get(host.openapi)).json()["paths"]
    ours = {path: set(methods) for path, methods in paths.items() if path not in {"/hello", "/state"}}
    listed = [*PATHS.values(), "/asyncapi.json", "/asyncapi.yaml"] if shown else []
    assert ours == {path: {"get"} for path in listed}


# --- how they can be asked ---


async def test_head_says_what_get_says_without_a_body(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, metrics_registry=CollectorRegistry())) as served:
        for path in OURS:
            get, head = [await served.http.request(each, path, params=NO_METRICS) for each in ("GET", "HEAD")]
            assert told(head) == (get.status_code, b"", dict(get.headers)), path


async def test_other_methods_get_405_and_are_told_which_are_allowed(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders)) as served:
        for path in OURS:
            for method in METHODS:
                answer = await served.http.request(method, path)
                assert answer.status_code == 405, (method, path)
                allowed = {word.strip() for word in answer.headers["allow"].split(",")}
                # Whether there are answers to OPTIONS is the host's business.
                assert allowed - {"OPTIONS"} == {"GET", "HEAD"}, (method, path)


async def test_a_slash_at_the_end_changes_nothing(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, metrics_registry=CollectorRegistry())) as served:
        for path in (*PATHS.values(), "/asyncapi.json"):
            for method in ("GET", "HEAD"):
                with_slash = await served.http.request(method, f"{path}/", params=NO_METRICS)
                without = await served.http.request(method, path, params=NO_METRICS)
                assert with_slash.status_code == without.status_code, (method, path)
                if path != "/asyncapi":  # where the links in the page are relative to it
                    assert told(with_slash) == told(without), (method, path)


async def test_a_root_path_changes_nothing(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders), root_path="/svc") as served:
        await all_answer(served, below="/svc")
        for path in ("/svc/asyncapi", "/svc/asyncapi/"):
            await follow_links(served, await served.http.get(path))


@pytest.mark.needs("bare_paths")
async def test_a_root_path_may_be_missing_in_the_path(host: Host, orders: Orders) -> None:
    """Some servers put it there, others do not."""
    async with serving(build(host, orders), root_path="/svc") as served:
        await all_answer(served)


async def all_answer(served: Served, below: str = "") -> None:
    for path in PROBES.values():
        assert await served.status(below + path) == 204, path
        assert await served.status(f"{below}{path}/") == 204, path
    for path in ("/metrics", *DOCUMENTS):
        assert await served.status(below + path) == 200, path


@pytest.mark.needs("prefixes")
async def test_a_prefix_is_in_front_of_every_path(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, prefix="/internal")) as served:
        await all_answer(served, below="/internal")
        for path in OURS:
            assert await served.status(path) == 404, path
        for path in ("/internal/asyncapi", "/internal/asyncapi/"):
            await follow_links(served, await served.http.get(path))


@pytest.mark.needs("prefixes")
async def test_a_prefix_and_a_root_path_go_together(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, prefix="/internal"), root_path="/svc") as served:
        assert await served.status("/svc/internal/ping") == 204
        assert await served.status("/svc/ping") == 404
        await follow_links(served, await served.http.get("/svc/internal/asyncapi"))


@pytest.mark.parametrize("denial", [False, True], ids=["close", "response"])
async def test_a_websocket_is_refused(host: Host, orders: Orders, denial: bool) -> None:
    async with serving(build(host, orders)) as served:
        for path in OURS:
            sent = await websocket_refusal(served.app, path, denial=denial)
            assert sent, path
            kind = sent[0]["type"]
            assert kind == "websocket.close" or (denial and kind == "websocket.http.response.start"), path


# --- what stays the host's ---


async def test_the_host_answers_everything_else_as_without_us(host: Host, orders: Orders) -> None:
    requests = [
        *(("GET", path) for path in ("/hello", "/nothing", "/", "/ping/deeper", "/asyncapix", "/health")),
        *(("POST", path) for path in ("/hello", "/nothing")),
    ]
    async with serving(build(host, orders)) as ours, client(host.plain(Own())) as plain:
        for method, path in requests:
            with_us, without = await ours.http.request(method, path), await plain.request(method, path)
            assert told(with_us) == told(without), (method, path)
        assert await ours.text("/hello") == "hello"
        assert await ours.status("/nothing") == 404
        assert await ours.status("/asyncapi/nothing") == 404


async def test_paths_are_off_until_they_are_named(host: Host, orders: Orders) -> None:
    async with serving(host.build(orders.broker, ping_path="/ping")) as served:
        assert await served.status("/ping") == 204
        for path in set(OURS) - {"/ping"}:
            assert await served.status(path) == 404, path


async def test_where_no_lifespan_ran_the_probes_say_so(
    host: Host,
    orders: Orders,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with client(build(host, orders, probe_details=True)) as http:
        for _ in range(2):
            for keyword, path in PROBES.items():
                answer = await http.get(path)
                assert answer.status_code == (500 if keyword == "ping_path" else 503), path
                assert answer.json()["code"] == "not_started", path
        assert (await http.get("/asyncapi.json")).status_code == 200
    assert caplog.text.count("its lifespan never ran") == len(PROBES)


@pytest.mark.needs("guards")
async def test_guards_apply_to_everything_of_ours(host: Host, orders: Orders) -> None:
    async with serving(build(host, orders, guarded=True)) as served:
        page = await served.http.get("/asyncapi", headers=TOKEN)
        [style] = re.findall(r'href="([^"]+\.css)"', page.text)
        for path in (*OURS, urljoin("/asyncapi", style)):
            for method in ("GET", "HEAD"):
                for url in (path, f"{path}/"):
                    assert await served.status(url, method) in {401, 403}, (method, url)
                assert await served.status(path, method, headers=TOKEN) in {200, 204}, (method, path)
        assert await served.text("/hello") == "hello"


@pytest.mark.needs("guards", "composes", "lifespans")
async def test_some_endpoints_can_be_open_and_others_guarded(host: Host, orders: Orders) -> None:
    from faststream_adapters import BrokerLifespan
    from tests.hosts import Ours

    states: list[str] = []
    lifespan = BrokerLifespan(orders.broker, on_state_change=lambda _, new: states.append(new))
    app = host.compose(
        Own(),
        Ours([lifespan], {"readiness_path": "/ready"}),
        Ours([lifespan], {"asyncapi_path": "/asyncapi"}, guarded=True),
    )
    async with serving(app) as served:
        assert await served.status("/ready") == 204
        assert await served.status("/asyncapi.json") in {401, 403}
        assert await served.status("/asyncapi.json", headers=TOKEN) == 200
    assert states == ["starting", "running", "draining", "stopped"]


# --- paths that cannot be ---


def test_two_endpoints_on_one_path_are_an_error(host: Host) -> None:
    with pytest.raises(SetupError, match="'/same' is served already"):
        host.build(NatsBroker(), ping_path="/same", readiness_path="/same/")


def test_a_path_starts_with_a_slash(host: Host) -> None:
    with pytest.raises(SetupError, match="'ping' must start with"):
        host.build(NatsBroker(), ping_path="ping")


@pytest.mark.needs("sees_paths")
async def test_a_path_of_the_host_is_an_error(host: Host, orders: Orders) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises((SetupError, StartupFailedError), match="/hello"):
            await stack.enter_async_context(serving(host.build(orders.broker, ping_path="/hello")))
