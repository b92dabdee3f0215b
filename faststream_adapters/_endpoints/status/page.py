"""The status page: a view of the JSON document, without scripts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import NamedTuple, TypeVar

from faststream_adapters._asgi.markup import Html, join, tag
from faststream_adapters._asgi.shell import Shell
from faststream_adapters._brokers.codes import Code
from faststream_adapters._endpoints.report import Status
from faststream_adapters._lifecycle.reasons import BROKER_REASONS, SUBSCRIBER_REASONS

from . import words
from .document import BrokerStatus, ChangeStatus, CheckStatus, StatusDocument, SubscriberStatus

_MAX_NAMES = 5
"""How many subscribers with the same fault are named."""

_KINDS: Mapping[Code, str] = {
    "not_started": "off",
    "stopped": "off",
    "paused": "off",
    "starting": "warn",
    "draining": "warn",
}
"""How codes look that are neither good nor bad, whatever their status is."""

_SIGNS = {"good": "✓", "warn": "!", "bad": "✗", "off": "○"}
"""A sign for each kind of badge, because colour is not the only difference."""

_UNKNOWN = "—"
"""The text of a cell without a value."""

_ORDER: Sequence[Status] = ("fail", "warn", "pass")

Component = BrokerStatus | CheckStatus | SubscriberStatus


@cache
def shell() -> Shell:
    """Return the HTML document around the page."""
    return Shell((files(__package__) / "status.css").read_text(encoding="utf-8"))


class Settings(NamedTuple):
    """The settings of a page, which do not depend on the status.

    Args:
        refresh: The seconds after which the browser loads it again; 0: never.
        interval: The seconds after which it does so if the reader does not stop it; 0: never.
        links: The texts and URLs of links.
    """

    refresh: int
    interval: int
    links: Mapping[str, str]


def render(document: StatusDocument, settings: Settings) -> bytes:
    """Return the page."""
    return _Page(document).render(settings)


class _Page:
    def __init__(self, document: StatusDocument) -> None:
        self._document = document
        self._now = datetime.fromisoformat(document["time"])
        self._lost = {each["name"] for each in document["brokers"] if each["status"] != "pass"}
        self._running = "running" in document["state"]
        self._draining = "draining" in document["state"]

    def render(self, settings: Settings) -> bytes:
        document = self._document
        heading, explanation = self._verdict()
        kind = _kind(document["status"], document["code"])
        refresh = tag("meta", http_equiv="refresh", content=settings.refresh) if settings.refresh else None
        return shell().page(
            f"{_SIGNS[kind]} {heading} · {document['process']['host']}",
            tag("h1", "Status: ", tag("span", _sign(kind), heading.lower(), class_=kind)),
            tag("p", explanation),
            self._facts(settings),
            self._problems(),
            self._brokers(),
            self._checks(),
            self._subscribers(),
            self._changes(),
            head=[refresh],
        )

    def _verdict(self) -> tuple[str, str]:
        """Return a heading and an explanation."""
        document = self._document
        if (known := words.VERDICTS.get(document["code"])) is not None:
            return known
        if not self._running:
            return words.STOPPED
        return words.RUNNING[document["status"]]

    def _facts(self, settings: Settings) -> Html:
        document, process = self._document, self._document["process"]
        states = ", ".join(words.LIFESPAN[each].lower() for each in document["state"])
        since = document["since"]
        facts = {
            "Process": join(
                tag("code", process["pid"]),
                " on ",
                tag("code", process["host"]),
                ", since ",
                self._since(process["since"]),
                ". There may be others: each request reaches one." if process["one_of_several"] else None,
            ),
            "State": join(states, *(() if since is None else (", since ", self._since(since)))),
            "As of": join(self._moment(document["time"]), " UTC. ", _refreshing(settings)),
        }
        links = [tag("a", text, href=url, rel="noreferrer") for text, url in settings.links.items()]
        return join(
            tag("dl", *(part for name, fact in facts.items() for part in (tag("dt", name), tag("dd", fact)))),
            tag("p", *links, class_="links"),
        )

    def _problems(self) -> Html | None:
        document = self._document
        problems: list[tuple[Status, Html]] = [
            (broker["status"], self._broker_problem(broker))
            for broker in document["brokers"]
            if broker["status"] != "pass" and (self._running or broker["code"] != "not_started")
        ]
        problems += [
            (
                check["status"],
                join(_listed([check["name"]], 1, 1), _optional(check), " fails. ", words.CHECK_ADVICE),
            )
            for check in document["checks"]
            # Those of a lifespan that does not run are out of date.
            if _has_fault(check) and self._running
        ]
        problems += self._subscriber_problems()
        problems.sort(key=lambda problem: _ORDER.index(problem[0]))
        if not problems:
            return None
        items = [
            tag("li", _badge("bad", "Fault") if status == "fail" else _badge("warn", "Warning"), text)
            for status, text in problems
        ]
        return tag(
            "section",
            tag("h2", "What is wrong", id="problems"),
            tag("ul", *items, class_="problems"),
            aria_labelledby="problems",
        )

    def _broker_problem(self, broker: BrokerStatus) -> Html:
        reason = BROKER_REASONS.get(broker["code"], "its check or its start failed")
        last = broker["last_reply"]
        return join(
            _listed([broker["name"]], 1, 1),
            _optional(broker),
            f" is not available: {reason}. ",
            words.BROKER_ADVICE.get(broker["code"]),
            *(() if last is None else (" Last reply ", self._ago(last), ".")),
        )

    def _subscriber_problems(self) -> Iterator[tuple[Status, Html]]:
        alike: dict[tuple[Status, Code, str], list[SubscriberStatus]] = {}
        for each in self._document["subscribers"]:
            if _has_fault(each):
                alike.setdefault((each["status"], each["code"], each["broker"]), []).append(each)
        for (status, code, _), subscribers in alike.items():
            yield (
                status,
                join(
                    _listed([each["name"] for each in subscribers], len(subscribers), _MAX_NAMES),
                    _optional(subscribers[0]),
                    " does" if len(subscribers) == 1 else " do",
                    f" not consume: {SUBSCRIBER_REASONS.get(code, code)}. ",
                    words.SUBSCRIBER_ADVICE.get(code),
                ),
            )

    def _brokers(self) -> Html | None:
        brokers = self._document["brokers"]
        rows = [
            (
                _name(broker["name"], broker["address"]),
                self._broker_state(broker),
                self._ago(broker["last_reply"]),
                _milliseconds(broker["round_trip_ms"]),
                f"{broker['restarts']:,}",
            )
            for broker in _faults_first(brokers)
        ]
        header = ("Broker", "State", "Last reply", "Round trip", "Restarts")
        return _table("Brokers", self._summary(brokers, "reply"), header, rows)

    def _checks(self) -> Html | None:
        checks = self._document["checks"]
        rows = [
            (
                _name(check["name"]),
                self._check_state(check),
                self._ago(check["last_result"]),
                _milliseconds(check["duration_ms"]),
            )
            for check in _faults_first(checks)
        ]
        header = ("Check", "State", "Last result", "Took")
        return _table("Health checks", self._summary(checks, "pass"), header, rows)

    def _subscribers(self) -> Html | None:
        subscribers = self._document["subscribers"]
        several = len(self._document["brokers"]) > 1
        drops = any(each["dropped"] for each in subscribers)
        header = [
            "Subscriber",
            "State",
            "In flight",
            "Oldest",
            "Per second",
            "Received",
            "Failed",
            *(["Dropped"] if drops else []),
            "Waiting",
            "Last message",
        ]
        rows = [
            (
                _name(
                    each["name"],
                    each["destination"],
                    each["group"] and f"group {each['group']}",
                    each["broker"] if several else None,
                ),
                self._subscriber_state(each),
                f"{each['in_flight']:,}",
                _duration(each["oldest_seconds"]) if each["in_flight"] else _UNKNOWN,
                _rate(each["per_second"]),
                f"{each['received']:,}",
                _strong_unless_zero(each["failed"]),
                *([_strong_unless_zero(each["dropped"])] if drops else []),
                _backlog(each),
                self._ago(each["last_message"]),
            )
            for each in self._in_order(subscribers)
        ]
        note = (
            "Per second: of the last minute. Received and failed: since this process started. "
            "Waiting: on the server, for all processes together, or, where marked “own”, for this one."
        )
        table = _table("Subscribers", self._summary(subscribers, "consume"), header, rows)
        return table and join(table, tag("p", note, class_="note"))

    def _summary(self, components: Sequence[Component], verb: str) -> str:
        """Return how many components there are, and how many are in which condition."""
        faults = sum(_has_fault(each) and each["status"] == "fail" for each in components)
        warnings = sum(_has_fault(each) and each["status"] == "warn" for each in components)
        good = sum(each["code"] == "ok" for each in components)
        counts = {
            "faulty": faults,
            "with a warning": warnings,
            verb: good,
            "not started, stopped or paused": len(components) - faults - warnings - good,
        }
        parts = [f"{len(components):,} in all"]
        if not self._draining:
            parts += [f"{count:,} {what}" for what, count in counts.items() if count]
        return ", ".join(parts)

    def _broker_state(self, broker: BrokerStatus) -> Html:
        if broker["code"] == "not_started" and self._draining:
            return join(_badge("off", "Stopping"), _optional(broker))
        return _state(broker, words.BROKER)

    def _check_state(self, check: CheckStatus) -> Html:
        if self._draining:
            # It is not called any more.
            return join(_badge("off", words.CHECK.get(check["code"], check["code"])), _optional(check))
        return _state(check, words.CHECK)

    def _in_order(self, subscribers: Sequence[SubscriberStatus]) -> list[SubscriberStatus]:
        if self._draining:
            # The process waits for these.
            return sorted(subscribers, key=lambda each: not each["in_flight"])
        return _faults_first(subscribers)

    def _subscriber_state(self, subscriber: SubscriberStatus) -> Html:
        if self._draining and subscriber["in_flight"]:
            return join(_badge("warn", "Finishing"), _optional(subscriber))
        if subscriber["code"] == "ok" and self._draining:
            return join(_badge("off", "Stopping"), _optional(subscriber))
        if subscriber["code"] == "ok" and subscriber["broker"] in self._lost:
            return join(_badge("warn", "Waits for its broker"), _optional(subscriber))
        return _state(subscriber, words.SUBSCRIBER)

    def _changes(self) -> Html:
        changes = self._document["changes"]
        rows = [
            (
                join(self._moment(change["time"]), " · ", self._ago(change["time"])),
                _changed(change),
                words.OF_KIND[change["kind"]].get(change["old"], change["old"]),
                words.OF_KIND[change["kind"]].get(change["new"], change["new"]),
            )
            for change in changes
        ]
        header = ("Time (UTC)", "What", "Before", "Then")
        table = _table("Last changes", "The latest first.", header, rows)
        return table or join(tag("h2", "Last changes"), tag("p", "There was no change yet."))

    def _moment(self, time: str) -> Html:
        moment = datetime.fromisoformat(time)
        form = "%H:%M:%S" if moment.date() == self._now.date() else "%Y-%m-%d %H:%M:%S"
        return tag("time", moment.strftime(form), datetime=time)

    def _ago(self, time: str | None) -> Html:
        if time is None:
            return Html(_UNKNOWN)
        seconds = (self._now - datetime.fromisoformat(time)).total_seconds()
        return tag("time", f"{_duration(max(seconds, 0.0))} ago", datetime=time)

    def _since(self, time: str) -> Html:
        seconds = (self._now - datetime.fromisoformat(time)).total_seconds()
        return join(self._moment(time), f" UTC ({_duration(max(seconds, 0.0))})")


def _kind(status: Status, code: Code) -> str:
    """Return how a badge looks: the name of a sign, which is also a class of the stylesheet."""
    return _KINDS.get(code) or {"pass": "good", "warn": "warn", "fail": "bad"}[status]


def _sign(kind: str) -> Html:
    # The word beside it says the same.
    return tag("span", _SIGNS[kind], " ", aria_hidden="true")


def _badge(kind: str, word: str) -> Html:
    return tag("span", _sign(kind), word, class_=f"badge {kind}")


def _state(component: Component, names: words.Words) -> Html:
    code = component["code"]
    kind = _kind(component["status"], code)
    return join(_badge(kind, names.get(code, code)), _optional(component))


def _optional(component: Component) -> Html | None:
    return tag("span", " (optional)", class_="note") if component["optional"] else None


def _has_fault(component: Component) -> bool:
    return component["status"] != "pass" and component["code"] != "not_started"


C = TypeVar("C", BrokerStatus, CheckStatus, SubscriberStatus)


def _faults_first(components: Iterable[C]) -> list[C]:
    return sorted(components, key=lambda each: (_ORDER.index(each["status"]), each["code"] == "not_started"))


def _listed(names: Sequence[str], count: int, most: int) -> Html:
    """Return names as a list in words.

    Args:
        names: The names, or the first ones.
        count: How many there are.
        most: How many to show.
    """
    shown = names[:most]
    parts = [part for name in shown for part in (", ", tag("strong", tag("bdi", name)))][1:]
    more = count - len(shown)
    return join(*parts, f" and {more:,} more" if more else None)


def _changed(change: ChangeStatus) -> Html:
    if change["kind"] == "lifespan":
        return Html("This process")
    if change["count"] == 1:
        return _listed(change["names"], 1, 1)
    kind = f"{change['count']:,} {words.PLURALS[change['kind']]}: "
    return join(kind, _listed(change["names"], change["count"], _MAX_NAMES))


def _name(name: str, *details: str | None) -> Html:
    parts = [part for each in details if each for part in (" · ", tag("bdi", each))][1:]
    return join(tag("bdi", name, class_="name"), tag("span", *parts, class_="note") if parts else None)


def _table(title: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Html | None:
    """Return a section with a table whose first column has the names of the rows; None without rows."""
    if not rows:
        return None
    name = title.lower().replace(" ", "-")
    body = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in cells))
        for first, *cells in rows
    ]
    table = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *(tag("th", each, scope="col") for each in header))),
        tag("tbody", *body),
    )
    # A region that scrolls must be reachable with the keyboard.
    scroll = tag("div", table, class_=f"scroll {name}", role="region", tabindex=0, aria_labelledby=name)
    return join(tag("h2", title, id=name), scroll)


def _milliseconds(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:,.1f} ms"


def _rate(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value:,.0f}" if value >= 100 or not value else f"{value:.2g}"  # noqa: PLR2004 (digits to show)


def _strong_unless_zero(value: int | None) -> object:
    return tag("strong", f"{value:,}") if value else "0"


def _backlog(subscriber: SubscriberStatus) -> str:
    if (backlog := subscriber["backlog"]) is None:
        return _UNKNOWN
    return f"{backlog:,}" if subscriber["backlog_shared"] else f"{backlog:,} own"


def _refreshing(settings: Settings) -> Html | None:
    if settings.refresh:
        return join(f"Refreshed every {settings.refresh} s. ", tag("a", "Stop refreshing", href="?refresh=0"))
    if settings.interval:
        return tag("a", f"Refresh every {settings.interval} s", href="?")
    return None


def _duration(seconds: float) -> str:
    """Return a duration with its two largest units."""
    if seconds < 60:  # noqa: PLR2004 (a minute)
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 (an hour)
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:  # noqa: PLR2004 (a day)
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
