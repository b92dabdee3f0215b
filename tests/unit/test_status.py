"""The status page and its JSON document."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import subprocess
import sys
import threading
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast, get_args

import pytest
from faststream import FastStream
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, HealthCheck, make_status_asgi
from faststream_adapters._asgi.shell import shared_file
from faststream_adapters._brokers.codes import BrokerCode, SubscriberCode
from faststream_adapters._endpoints.status import document as document_module
from faststream_adapters._endpoints.status import endpoint as endpoint_module
from faststream_adapters._endpoints.status import page as page_module
from faststream_adapters._endpoints.status import words
from faststream_adapters._endpoints.status.document import StatusDocument
from faststream_adapters._endpoints.status.page import Settings, render
from faststream_adapters._lifecycle import health_check, health_observer
from faststream_adapters._lifecycle.managed import managed_broker
from faststream_adapters._lifecycle.options import State
from faststream_adapters.testing import in_memory
from tests.harness.asgi_calls import http_scope, request
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp

    from tests.harness.asgi_calls import Reply

NOW = "2030-01-02T12:00:00Z"
TODAY = "2030-01-02T11:59:18Z"
EARLIER = "2029-12-30T08:00:00Z"
NEVER = Settings(0, 0, {})


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_observer, "HISTORY_INTERVAL", 0.01)
    monkeypatch.setattr(health_check, "_MIN_POLL_INTERVAL", 0.01)


# --- reading a page ---


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.title = ""
        self._open: list[str] = []
        self.feed(body.decode())
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        # Every element is closed, and none twice.
        assert self._open.pop() == tag
        if tag in {"td", "th", "li", "p", "dd", "dt", "caption", "h1", "h2"}:
            self.text += " | "

    def handle_data(self, data: str) -> None:
        if "title" in self._open:
            self.title += data
        elif "style" not in self._open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def links(self) -> list[str | None]:
        return [each["href"] for each in self.all("a")]


async def get(app: ASGIApp, path: str = "/status", **options: Any) -> Reply:
    reply = await request(app, http_scope(path, **options))
    assert reply.status == 200
    return reply


async def page_of(app: ASGIApp, path: str = "/status", **options: Any) -> Page:
    return Page((await get(app, path, **options)).body)


async def document_of(app: ASGIApp) -> StatusDocument:
    reply = await get(app, query="format=json")
    document: StatusDocument = json.loads(reply.body)
    return document


# --- the document ---


async def handle(message: str) -> None: ...


def consumer(**options: Any) -> NatsBroker:
    broker = NatsBroker(logger=None, **options)
    broker.subscriber("jobs", "workers")(handle)
    return broker


async def test_the_document_contains_everything_that_is_known() -> None:
    broker = consumer()
    lifespan = BrokerLifespan(broker, checks=[HealthCheck("database", lambda: True)])
    status = make_status_asgi(lifespan)
    with in_memory():
        async with lifespan:
            await broker.publish("work", "jobs")
            await eventually(lambda: lifespan.checks[0].code == "ok")
            document = await document_of(status)
    assert document["status"] == "pass"
    assert document["code"] == "ok"
    assert document["state"] == ["running"]
    assert set(document["process"]) == {"host", "pid", "since", "one_of_several"}
    assert document["process"]["one_of_several"] is False
    [shown] = document["brokers"]
    assert shown == {
        "name": "NatsBroker 1",
        "address": "nats://localhost:4222",
        "status": "pass",
        "code": "ok",
        "optional": False,
        "last_reply": None,
        "round_trip_ms": None,
        "restarts": 0,
    }
    [check] = document["checks"]
    assert (check["name"], check["status"], check["code"], check["optional"]) == (
        "database",
        "pass",
        "ok",
        False,
    )
    assert check["duration_ms"] is not None
    [subscriber] = document["subscribers"]
    assert subscriber == {
        "name": "handle",
        "broker": "NatsBroker 1",
        "destination": "jobs",
        "group": "workers",
        "status": "pass",
        "code": "ok",
        "optional": False,
        "in_flight": 0,
        "oldest_seconds": 0.0,
        "per_second": None,
        "received": 1,
        "failed": 0,
        "dropped": 0,
        "backlog": None,
        "backlog_shared": None,
        "last_message": subscriber["last_message"],
    }
    times = [document["time"], document["since"], check["last_result"], subscriber["last_message"]]
    times += [document["process"]["since"], *(change["time"] for change in document["changes"])]
    for time in times:
        assert time is not None
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)


async def test_the_document_has_the_fields_that_are_declared() -> None:
    lifespan = BrokerLifespan(consumer(), checks=[HealthCheck("database", lambda: True)])
    status = make_status_asgi(lifespan)
    with in_memory():
        async with lifespan:
            document = await document_of(status)
    lists = {
        "brokers": document_module.BrokerStatus,
        "checks": document_module.CheckStatus,
        "subscribers": document_module.SubscriberStatus,
        "changes": document_module.ChangeStatus,
    }
    assert list(document) == list(StatusDocument.__annotations__)
    assert list(document["process"]) == list(document_module.ProcessStatus.__annotations__)
    for name, declared in lists.items():
        entries: Any = document[name]  # type: ignore[literal-required]  # a name in `lists`
        assert list(entries[0]) == list(declared.__annotations__), name


async def test_the_changes_are_those_of_the_state_and_of_the_health_the_latest_first() -> None:
    results = [True]
    lifespan = BrokerLifespan(consumer(), checks=[HealthCheck("database", lambda: results[-1])])
    status = make_status_asgi(lifespan)
    with in_memory():
        async with lifespan:
            await eventually(lambda: lifespan.checks[0].code == "ok")
            results.append(False)
            await eventually(lambda: lifespan.checks[0].code == "check_failed")
            await eventually(lambda: next(iter(lifespan.status.history)).new == "check_failed")
            changes = (await document_of(status))["changes"]
    assert (await document_of(status))["changes"][0]["new"] == "stopped"
    words = [(each["kind"], each["names"], each["count"], each["old"], each["new"]) for each in changes]
    assert words[0] == ("check", ["database"], 1, "ok", "check_failed")
    assert words[-1] == ("lifespan", [], 1, "stopped", "starting")
    assert sorted(words[1:-1]) == [
        ("broker", ["NatsBroker 1"], 1, "not_started", "ok"),
        ("check", ["database"], 1, "not_started", "ok"),
        ("lifespan", [], 1, "starting", "running"),
        ("subscriber", ["handle"], 1, "not_started", "ok"),
    ]


async def test_changes_are_recorded_for_brokers_that_a_hook_adds() -> None:
    app, broker = FastStream(), consumer()
    lifespan = BrokerLifespan(app)
    status = make_status_asgi(broker)
    app.on_startup(lambda: app.add_broker(broker))
    with in_memory():
        async with lifespan:
            await eventually(lambda: any(each.kind == "subscriber" for each in lifespan.status.history))
            assert (await document_of(status))["state"] == ["running"]


async def test_nothing_is_recorded_or_counted_without_the_endpoint() -> None:
    broker = consumer()
    lifespan = BrokerLifespan(broker)
    with in_memory():
        async with lifespan:
            pass
    assert {change.kind for change in lifespan.status.history} == {"lifespan"}
    assert managed_broker(broker).statistics is None
    make_status_asgi(lifespan)
    assert managed_broker(broker).statistics is not None


@pytest.mark.parametrize("kind", ["broker", "app", "lifespan"])
async def test_every_kind_of_target_has_a_status(kind: str) -> None:
    broker = consumer()
    app = FastStream(broker)
    lifespan = BrokerLifespan(app)
    targets: dict[str, Any] = {"broker": broker, "app": app, "lifespan": lifespan}
    status = make_status_asgi(targets[kind])
    document = await document_of(status)
    assert (document["status"], document["code"]) == ("fail", "not_started")
    assert document["state"] == ["stopped"]
    assert (document["since"] is None) == (kind != "lifespan")
    assert [each["code"] for each in document["brokers"]] == ["not_started"]


async def test_two_lifespans_that_share_a_broker_have_one_history() -> None:
    broker = consumer()
    first, second = BrokerLifespan(broker), BrokerLifespan(broker)
    status = make_status_asgi(broker)
    with in_memory():
        async with first, second:
            await eventually(lambda: len([*first.status.history, *second.status.history]) == 8)
            document = await document_of(status)
    assert document["state"] == ["running"]
    times = [change["time"] for change in document["changes"]]
    assert len(times) == 8
    assert times == sorted(times, reverse=True)


@pytest.mark.full
async def test_an_optional_check_that_fails_is_a_warning_and_one_without_a_result_too() -> None:
    failing = HealthCheck("mail", lambda: False)
    gate = threading.Event()
    hanging = HealthCheck("database", gate.wait, timeout=60.0)
    lifespan = BrokerLifespan(consumer(), checks=[failing, hanging], optional=[failing])
    status = make_status_asgi(lifespan)
    try:
        with in_memory():
            async with lifespan:
                await eventually(lambda: lifespan.checks[0].code == "check_failed")
                document = await document_of(status)
    finally:
        gate.set()
    assert (document["status"], document["code"]) == ("warn", "ok")
    assert [(each["name"], each["status"], each["code"]) for each in document["checks"]] == [
        ("mail", "warn", "check_failed"),
        ("database", "warn", "not_started"),
    ]


async def test_a_worker_is_one_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/23.0")
    document = await document_of(make_status_asgi(BrokerLifespan(consumer())))
    assert document["process"]["one_of_several"] is True


async def test_credentials_are_not_shown() -> None:
    lifespan = BrokerLifespan(NatsBroker("nats://ann:top-secret-9@127.0.0.1:1"))
    status = make_status_asgi(lifespan)
    document = await document_of(status)
    assert document["brokers"][0]["address"] == "nats://127.0.0.1:1"
    for reply in (await get(status), await get(status, query="format=json")):
        assert b"top-secret" not in reply.body
        assert b"ann:" not in reply.body


@pytest.mark.full
def test_a_forked_process_began_when_it_was_forked() -> None:
    code = """
import os, time
from faststream_adapters import make_status_asgi
from faststream.nats import NatsBroker
import asyncio, json
make = make_status_asgi(NatsBroker())
sent = []
async def send(message): sent.append(message)
async def receive(): return {"type": "http.request"}
def since():
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"format=json", "headers": []}
    sent.clear()
    asyncio.run(make(scope, receive, send))
    return json.loads(sent[1]["body"])["process"]["since"]
before = since()
while time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) == before:
    time.sleep(0.01)
if os.fork() == 0:
    print(since() > before, flush=True)
    os._exit(0)
os.wait()
print(since() == before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "True\nTrue\n", done.stderr


# --- the page ---


def broker_status(**changes: Any) -> Any:
    status = {
        "name": "NatsBroker 1",
        "address": "nats://one:4222",
        "status": "pass",
        "code": "ok",
        "optional": False,
        "last_reply": TODAY,
        "round_trip_ms": 1.25,
        "restarts": 0,
    }
    return {**status, **changes}


def check_status(**changes: Any) -> Any:
    status = {
        "name": "database",
        "status": "pass",
        "code": "ok",
        "optional": False,
        "last_result": TODAY,
        "duration_ms": 2.0,
    }
    return {**status, **changes}


def subscriber_status(**changes: Any) -> Any:
    status = {
        "name": "handle",
        "broker": "NatsBroker 1",
        "destination": "jobs",
        "group": None,
        "status": "pass",
        "code": "ok",
        "optional": False,
        "in_flight": 0,
        "oldest_seconds": 0.0,
        "per_second": 0.0,
        "received": 0,
        "failed": 0,
        "dropped": None,
        "backlog": None,
        "backlog_shared": None,
        "last_message": None,
    }
    return {**status, **changes}


def document(**changes: Any) -> StatusDocument:
    whole: Any = {
        "status": "pass",
        "code": "ok",
        "state": ["running"],
        "since": EARLIER,
        "time": NOW,
        "process": {"host": "pod-1", "pid": 7, "since": EARLIER, "one_of_several": False},
        "brokers": [broker_status()],
        "checks": [],
        "subscribers": [],
        "changes": [],
    }
    return cast("StatusDocument", {**whole, **changes})


def text_of(**changes: Any) -> str:
    return Page(render(document(**changes), NEVER)).text


def test_every_code_has_words() -> None:
    assert set(words.BROKER) == set(get_args(BrokerCode))
    assert set(words.SUBSCRIBER) == set(get_args(SubscriberCode))
    assert set(words.LIFESPAN) == set(get_args(State))
    faults = set(get_args(SubscriberCode)) - {"ok", "stopped", "paused", "not_started"}
    assert faults == set(words.SUBSCRIBER_ADVICE)


@pytest.mark.parametrize(
    ("changes", "title", "sentence"),
    [
        ({}, "✓ Ready", "All brokers reply"),
        ({"status": "warn"}, "! Ready, with warnings", "What is required works"),
        ({"status": "fail", "code": "timeout"}, "✗ Not ready", "Something that is required does not work"),
        ({"status": "fail", "code": "not_started"}, "○ Not ready", "Something that is required"),
        (
            {"status": "fail", "code": "starting", "state": ["starting"]},
            "! Starting",
            "waits for its brokers",
        ),
        (
            {"status": "fail", "code": "draining", "state": ["draining"]},
            "! Draining",
            "takes no new messages",
        ),
        ({"status": "fail", "code": "failed", "state": ["failed"]}, "✗ Failed", "The start failed"),
        ({"status": "fail", "code": "no_brokers", "brokers": []}, "✗ Not ready", "has no broker"),
        ({"status": "fail", "code": "not_started", "state": ["stopped"]}, "○ Stopped", "nothing is consumed"),
    ],
)
def test_the_heading_is_the_state_in_words(changes: Any, title: str, sentence: str) -> None:
    page = Page(render(document(**changes), NEVER))
    assert page.title == f"{title} · pod-1"
    sign, heading = title.split(" ", 1)
    assert f"Status: {sign} {heading.lower()} |" in page.text
    assert sentence in page.text


def test_the_process_and_the_times_are_shown() -> None:
    text = text_of()
    assert "7 on pod-1, since 2029-12-30 08:00:00 UTC (3 d 4 h)" in text
    assert "running, since 2029-12-30 08:00:00 UTC (3 d 4 h)" in text
    assert "As of | 12:00:00 UTC." in text
    assert "There may be others" not in text
    process = {"host": "pod-1", "pid": 7, "since": EARLIER, "one_of_several": True}
    assert "There may be others: each request reaches one." in text_of(process=process, since=None)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("timeout", "it did not reply in time. The server may be frozen"),
        ("unreachable", "the connection was refused. Check that the server runs"),
        ("auth_failed", "the credentials were rejected. Check the user"),
        ("closed", "the connection is closed. Supervision restarts"),
        ("not_started", "it is not connected."),
        ("error", "its check or its start failed. The log says why."),
    ],
)
def test_a_lost_broker_is_explained(code: str, sentence: str) -> None:
    broker = broker_status(status="fail", code=code)
    text = text_of(status="fail", code=code, brokers=[broker], subscribers=[subscriber_status()])
    assert f"✗ FaultNatsBroker 1 is not available: {sentence}" in text
    assert "Last reply 42 s ago." in text
    # Its subscribers do not consume either, whatever FastStream thinks of them.
    assert "! Waits for its broker" in text
    assert "✓ Consumes" not in text


@pytest.mark.parametrize(
    "code", sorted(set(get_args(SubscriberCode)) - {"ok", "stopped", "paused", "not_started"})
)
def test_a_faulty_subscriber_is_explained(code: str) -> None:
    subscriber = subscriber_status(status="fail", code=code)
    text = text_of(status="fail", code=code, subscribers=[subscriber])
    assert "✗ Faulthandle does not consume: " in text
    assert words.SUBSCRIBER_ADVICE[code] in text  # type: ignore[index]  # one of the codes
    assert f"✗ {words.SUBSCRIBER[code]} |" in text  # type: ignore[index]


def test_subscribers_with_the_same_fault_are_explained_together() -> None:
    faulty = [
        subscriber_status(name=f"handle_{number}", status="fail", code="consumer_missing")
        for number in range(7)
    ]
    text = text_of(status="fail", code="consumer_missing", subscribers=faulty)
    assert "handle_0, handle_1, handle_2, handle_3, handle_4 and 2 more do not consume: the server no" in text
    assert text.count("do not consume") == 1
    assert "7 in all, 7 faulty" in text


@pytest.mark.parametrize(
    ("code", "word"), [("stopped", "Stopped"), ("paused", "Paused"), ("not_started", "Not started")]
)
def test_what_is_not_meant_to_consume_is_no_fault(code: str, word: str) -> None:
    status = "warn" if code == "not_started" else "pass"
    text = text_of(subscribers=[subscriber_status(code=code, status=status)])
    assert f"○ {word} |" in text
    assert "What is wrong" not in text
    assert "1 in all, 1 not started, stopped or paused" in text


def test_faults_come_first_and_optional_ones_are_warnings() -> None:
    checks = [
        check_status(),
        check_status(name="mail", status="warn", code="check_failed", optional=True),
        check_status(name="search", status="fail", code="check_failed"),
        check_status(name="cache", status="warn", code="not_started", last_result=None, duration_ms=None),
    ]
    text = text_of(status="fail", code="check_failed", checks=checks)
    assert text.index("✗ Faultsearch fails.") < text.index("! Warningmail (optional) fails.")
    table = text[
        text.index("4 in all, 1 faulty, 1 with a warning, 1 pass, 1 not started, stopped or paused") :
    ]
    assert table.index("search") < table.index("mail") < table.index("cache") < table.index("database")
    assert "cache | ○ No result yet | — | — |" in table
    assert "database | ✓ Passes | 42 s ago | 2.0 ms |" in table


def test_the_results_of_checks_are_out_of_date_when_the_process_stops() -> None:
    changes: Any = {"status": "fail", "code": "draining", "state": ["draining"]}
    brokers = [broker_status(status="fail", code="not_started"), broker_status(name="NatsBroker 2")]
    checks = [check_status(status="fail", code="check_failed")]
    busy = subscriber_status(name="busy", in_flight=2, oldest_seconds=3.0)
    text = text_of(**changes, brokers=brokers, checks=checks, subscribers=[subscriber_status(), busy])
    assert "What is wrong" not in text
    # The process waits for this one.
    assert text.index("busyjobs · NatsBroker 1 | ! Finishing | 2 | 3 s |") < text.index("handlejobs")
    assert text.count("○ Stopping |") == 2
    # What consumed before, and what passed, says nothing now.
    assert "○ Fails |" in text
    assert "2 in all |" in text
    assert " in all, " not in text


def test_the_numbers_of_a_subscriber_are_shown() -> None:
    subscriber = subscriber_status(
        group="workers",
        in_flight=1234,
        oldest_seconds=125.0,
        per_second=0.0391,
        received=1_000_000,
        failed=12,
        dropped=3,
        backlog=5000,
        backlog_shared=True,
        last_message=EARLIER,
    )
    own = subscriber_status(name="own", backlog=7, backlog_shared=False, per_second=None, dropped=0)
    brokers = [broker_status(), broker_status(name="NatsBroker 2")]
    text = text_of(subscribers=[subscriber, own], brokers=brokers)
    assert (
        "handlejobs · group workers · NatsBroker 1 | ✓ Consumes | 1,234 | 2 min 5 s | 0.039 | 1,000,000 | "
        "12 | 3 | 5,000 | 3 d 4 h ago |"
    ) in text
    assert "ownjobs · NatsBroker 1 | ✓ Consumes | 0 | — | — | 0 | 0 | 0 | 7 own | — |" in text
    assert "Dropped" in text
    assert "Dropped" not in text_of(subscribers=[own])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (59.4, "59 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (90000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, expected: str) -> None:
    assert f"| {expected} |" in text_of(subscribers=[subscriber_status(in_flight=1, oldest_seconds=seconds)])


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.0, "0"), (1234.5, "1,234"), (12.34, "12"), (1.25, "1.2"), (0.005, "0.005")]
)
def test_rates_have_two_digits(rate: float, expected: str) -> None:
    assert f"| 0 | — | {expected} |" in text_of(subscribers=[subscriber_status(per_second=rate)])


def test_changes_are_shown_in_words() -> None:
    changes = [
        {
            "time": TODAY,
            "kind": "broker",
            "names": ["NatsBroker 1"],
            "count": 1,
            "old": "ok",
            "new": "timeout",
        },
        {
            "time": TODAY,
            "kind": "subscriber",
            "names": [*"abcdefg"],
            "count": 400,
            "old": "not_started",
            "new": "ok",
        },
        {"time": EARLIER, "kind": "lifespan", "names": [], "count": 1, "old": "starting", "new": "running"},
    ]
    text = text_of(changes=changes)
    assert "11:59:18 · 42 s ago | NatsBroker 1 | Replies | No reply |" in text
    assert "| 400 subscribers: a, b, c, d, e and 395 more | Not started | Consumes |" in text
    assert "2029-12-30 08:00:00 · 3 d 4 h ago | This process | Starting | Running |" in text
    assert "There was no change yet." not in text
    assert "There was no change yet." in text_of()


def test_the_structure_of_the_page_is_sound() -> None:
    page = Page(
        render(
            document(
                checks=[check_status(status="fail", code="check_failed")],
                subscribers=[subscriber_status()],
                changes=[
                    {
                        "time": NOW,
                        "kind": "lifespan",
                        "names": [],
                        "count": 1,
                        "old": "stopped",
                        "new": "starting",
                    }
                ],
            ),
            Settings(5, 5, {"JSON": "?format=json"}),
        )
    )
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert len(page.all("table")) == len(page.all("caption")) == 4
    assert {each.get("scope") for each in page.all("th")} == {"row", "col"}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {
        attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes
    } <= {*ids}
    for name in ("script", "img", "form", "iframe"):
        assert page.all(name) == []
    assert not any(
        key.startswith("on") or key == "style" for _, attributes in page.elements for key in attributes
    )
    [refresh] = [each for each in page.all("meta") if each.get("http-equiv")]
    assert refresh == {"http-equiv": "refresh", "content": "5"}


# If one of these is not escaped, it adds an element.
MARKUP = "</td></table><script>alert(1)</script>\"'`><img src=x onerror=alert(1)> &lt; \u202e"
# Half of a surrogate pair has no encoding.
HOSTILE = f"{MARKUP} \x00 \ud800"


async def test_hostile_names_are_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broker(NatsBroker):
        pass

    async def hostile(message: str) -> None: ...

    hostile.__name__ = MARKUP
    Broker.__name__ = MARKUP
    monkeypatch.setattr(document_module, "socket", SimpleNamespace(gethostname=lambda: HOSTILE))
    plain, broker = consumer(), Broker("nats://localhost:4222/<script>", logger=None)
    broker.subscriber(MARKUP, MARKUP)(hostile)
    monkeypatch.setattr(managed_broker(broker).driver, "destination", lambda _: HOSTILE)
    lifespan = BrokerLifespan(plain, broker, checks=[HealthCheck(HOSTILE, lambda: False)])
    status = make_status_asgi(lifespan, links={HOSTILE: "https://wiki.example/?q='><script>"})
    seen = []
    with in_memory():
        async with lifespan:
            await eventually(lambda: lifespan.checks[0].code == "check_failed")
            await eventually(lambda: next(iter(lifespan.status.history)).new == "check_failed")
            seen.append(await page_of(status))
    seen.append(await page_of(status))
    for page in seen:
        for name in ("script", "img"):
            assert page.all(name) == []
        assert "<script>alert(1)</script>" in page.text
        assert page.title.startswith(("✗", "○"))


# --- the endpoint ---


def stopped() -> BrokerLifespan:
    return BrokerLifespan(consumer())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_page_and_the_document_are_never_stored(method: str) -> None:
    status = make_status_asgi(stopped())
    page, as_json = await get(status, method=method), await get(status.json, method=method)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert as_json.headers["content-type"] == "application/json"
    for reply in (page, as_json):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["vary"] == "Accept-Encoding"
        assert "etag" not in reply.headers
        assert (reply.body == b"") == (method == "HEAD")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert page.headers["referrer-policy"] == "no-referrer"


async def test_other_methods_are_not_allowed() -> None:
    reply = await request(make_status_asgi(stopped()), http_scope(method="POST"))
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


async def test_the_page_is_compressed_if_the_client_accepts_gzip() -> None:
    status = make_status_asgi(stopped())
    for query in ("", "format=json"):
        reply = await get(status, query=query, headers=[("accept-encoding", "br, gzip")])
        assert reply.headers["content-encoding"] == "gzip"
        assert gzip.decompress(reply.body)[:1] == (b"{" if query else b"<")


async def test_the_page_is_loaded_again_unless_the_reader_stops_it() -> None:
    status = make_status_asgi(stopped(), refresh=30)
    first = await page_of(status)
    assert [each["content"] for each in first.all("meta") if "http-equiv" in each] == ["30"]
    assert "Refreshed every 30 s. Stop refreshing" in first.text
    assert "?refresh=0" in first.links
    paused = await page_of(status, query="refresh=0")
    assert [each for each in paused.all("meta") if "http-equiv" in each] == []
    assert "Refresh every 30 s" in paused.text
    assert "?" in paused.links
    # Nothing but 0 has a meaning.
    for query in ("refresh=1", "refresh=%22%3E", "refresh=0&refresh=1"):
        page = await page_of(status, query=query)
        assert [each["content"] for each in page.all("meta") if "http-equiv" in each] == ["30"]
    never = await page_of(make_status_asgi(stopped(), refresh=0))
    assert [each for each in never.all("meta") if "http-equiv" in each] == []
    assert "efresh" not in never.text


@pytest.mark.parametrize(
    ("path", "relative"),
    [("/status", "status/../metrics"), ("/status/", "../metrics"), ("/a%22b", "a%22b/../metrics")],
)
async def test_links_are_relative_to_the_page(path: str, relative: str) -> None:
    links = {"Metrics": "../metrics", "Runbook": "https://wiki.example/", "Home": "/home?a=b"}
    page = await page_of(make_status_asgi(stopped(), links=links), path)
    assert page.links[-4:] == ["?format=json", relative, "https://wiki.example/", "/home?a=b"]


@pytest.mark.parametrize("value", [-1, 1.5, "5", None, True, 86_401])
def test_an_interval_that_is_no_whole_number_of_seconds_is_refused(value: Any) -> None:
    with pytest.raises(SetupError, match="refresh must be a whole number of seconds from 0 to 86400"):
        make_status_asgi(stopped(), refresh=value)


@pytest.mark.parametrize(
    "value",
    [
        "https://wiki.example",
        [("a", "/x")],
        {"a": None},
        {1: "/x"},
        {"a": "javascript:alert(1)"},
        {"a": "JavaScript:x"},
        {"a": "java\tscript:x"},
        {"a": " javascript:x"},
        {"a": "data:text/html,x"},
        {"a": ""},
        {"a": "HTTPS://x"},
    ],
)
def test_links_that_could_run_a_script_are_refused(value: Any) -> None:
    with pytest.raises(SetupError, match="links must be texts with http"):
        make_status_asgi(stopped(), links=value)


def test_an_unknown_keyword_is_refused() -> None:
    unknown: Any = {"refesh": 5}
    with pytest.raises(TypeError, match="Did you mean 'refresh'"):
        make_status_asgi(stopped(), **unknown)


class Blocked:
    """Counts the snapshots and the pages that are made, and blocks these."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = 0
        self.rendered = 0
        self.threads: set[threading.Thread] = set()
        self.proceed = threading.Event()
        self._take, self._render = document_module.take, page_module.render
        monkeypatch.setattr(endpoint_module, "take", self.take)
        monkeypatch.setattr(page_module, "render", self.render)

    def take(self, target: Any) -> StatusDocument:
        self.taken += 1
        return self._take(target)

    def render(self, *arguments: Any) -> bytes:
        self.threads.add(threading.current_thread())
        self.rendered += 1
        assert self.proceed.wait(10)
        return self._render(*arguments)


async def test_concurrent_requests_share_one_status_and_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = Blocked(monkeypatch)
    status = make_status_asgi(stopped())
    requests = [asyncio.create_task(get(status)) for _ in range(20)]
    requests += [asyncio.create_task(get(status.json)), asyncio.create_task(get(status, query="refresh=0"))]
    await eventually(lambda: blocked.rendered == 1)
    blocked.proceed.set()
    replies = await asyncio.gather(*requests)
    assert (blocked.taken, blocked.rendered) == (1, 2)
    assert threading.current_thread() not in blocked.threads
    assert len({reply.body for reply in replies}) == 3
    # The next one gets a new status.
    await get(status)
    assert (blocked.taken, blocked.rendered) == (2, 3)


async def test_a_failure_is_logged_once_until_a_success(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    status = make_status_asgi(stopped())
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(endpoint_module, "take", lambda _: 1 / 0)
            for _ in range(3):
                reply = await request(status, http_scope())
                assert (reply.status, reply.headers["cache-control"]) == (500, "no-store")
                assert reply.body == b"The status could not be collected. The log contains the error."
        await get(status)
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.name for record in failures] == ["faststream.adapters.health"] * 2
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.full
def test_the_status_needs_no_prometheus_client() -> None:
    code = """
import sys
sys.modules["prometheus_client"] = None
import asyncio
from faststream.nats import NatsBroker
from faststream_adapters import AsgiFastStream
from faststream_adapters.testing import app_client
broker = NatsBroker()
app = AsgiFastStream(broker, status_path="/status")
async def main():
    async with app_client(app) as http:
        print((await http.get("/status")).status_code, (await http.get("/status.json")).json()["code"])
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "200 ok\n", done.stderr


def test_the_stylesheet_has_no_way_out_of_its_element() -> None:
    page = render(document(), NEVER).decode()
    assert page.count("</style>") == 1
    assert shared_file("base.css") in page
