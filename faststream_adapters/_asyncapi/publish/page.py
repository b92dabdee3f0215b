"""The page: a form for each declared channel. It works without scripts and by keyboard, and loads nothing."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby

from faststream_adapters._asgi.markup import Html, join, tag
from faststream_adapters._asgi.shell import Shell
from faststream_adapters._utils.threads import SingleFlight

from .body import MAX_DESTINATION
from .channels import Channel
from .outcome import Outcome
from .validation import FieldError

__all__ = ("Page",)

_TITLE = "Publish a message"
_OUTCOME = "outcome"
"""The id of the only element with the outcome of a form."""

_MAX_OPEN = 3
"""Up to this number of channels, all forms are open."""


class Page:
    """Renders the page, and the short one that refuses a request."""

    def __init__(self) -> None:
        static = files("faststream_adapters._asyncapi") / "static"
        css, script = ((static / f"publish.{each}").read_text(encoding="utf-8") for each in ("css", "js"))
        self._shell = Shell(css, script, forms=True)
        self._flight = SingleFlight()

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of each page."""
        return self._shell.headers

    async def render(
        self, channels: Sequence[Channel], token: str, outcome: Outcome | None, fields: Mapping[str, str]
    ) -> bytes:
        """Return the page.

        Args:
            channels: The channels.
            token: The token of its forms.
            outcome: What came of the form that was sent, or None.
            fields: The fields of that form, which it keeps.
        """
        # In a thread: the forms of 400 channels take 0.08 s, and the examples that are made once 1 s.
        return await self._flight.run(token, lambda: self._render(channels, token, outcome, fields))

    def _render(
        self, channels: Sequence[Channel], token: str, outcome: Outcome | None, fields: Mapping[str, str]
    ) -> bytes:
        forms = [
            _Form(number, channel, token, outcome, fields) for number, channel in enumerate(channels, start=1)
        ]
        sections: list[object] = [
            tag("h1", _TITLE),
            tag(
                "p",
                "What you publish here goes to the live brokers, as if the application had published it. "
                "Messages are JSON.",
                class_="text",
            ),
        ]
        if outcome is not None and not any(form.is_sent for form in forms):
            sections.append(_outcome(outcome))
        if not forms:
            sections.append(tag("p", "The application declares no channel.", class_="note"))
        open_all = len(forms) <= _MAX_OPEN
        links: list[Html] = []
        for broker, group in groupby(sorted(forms, key=lambda form: form.channel.broker), _broker):
            of_broker = list(group)
            sections += [tag("h2", broker), *(form.card(is_open=open_all) for form in of_broker)]
            links += [tag("p", broker), tag("ul", *(tag("li", form.link) for form in of_broker))]
        return self._shell.page(_TITLE, *sections, nav=join(*links) if links else None)

    def refusal(self, outcome: Outcome) -> bytes:
        """Return the page for a request that is refused before it is read."""
        return self._shell.page(_TITLE, tag("h1", _TITLE), _outcome(outcome))


def _broker(form: "_Form") -> str:
    return form.channel.broker


class _Form:
    """The form of one channel.

    Args:
        number: Its number on the page, for the ids of its elements.
        channel: The channel.
        token: The token of the page.
        outcome: What came of the form that was sent, or None.
        fields: The fields of that form.
    """

    def __init__(
        self, number: int, channel: Channel, token: str, outcome: Outcome | None, fields: Mapping[str, str]
    ) -> None:
        self.channel = channel
        self.is_sent = outcome is not None and fields.get("channel") == channel.name
        self._anchor = f"channel-{number}"
        self._token = token
        self._outcome = outcome if self.is_sent else None
        self._fields = fields if self.is_sent else {}

    @property
    def link(self) -> Html:
        """The entry in the table of contents."""
        return tag("a", self.channel.name, href=f"#{self._anchor}")

    def card(self, *, is_open: bool) -> Html:
        """Return the channel with its form."""
        channel = self.channel
        verb = "receives" if channel.is_consumed else "sends"
        summary = tag("summary", tag("h3", tag("span", verb, class_="badge"), " ", channel.name))
        facts = [f"Address {channel.address}"] if channel.address not in {"", channel.name} else []
        facts += ["The page waits for the subscriber's reply"] if channel.replies else []
        content = tag(
            "div",
            tag("p", ". ".join(facts), ".", class_="note") if facts else None,
            self._form() if not channel.reason else tag("p", channel.reason, class_="note"),
            self._schema(),
            # Browsers open what contains the target of a link.
            id=self._anchor,
        )
        return tag("details", summary, content, class_="card", open=is_open or self.is_sent)

    def _form(self) -> Html:
        invalid = {str(error["loc"][0]) for error in self._errors if error["loc"]}
        described = _OUTCOME if self._outcome is not None else None
        return join(
            None if self._outcome is None else _outcome(self._outcome),
            tag(
                "form",
                tag("input", type="hidden", name="token", value=self._token),
                tag("input", type="hidden", name="channel", value=self.channel.name),
                self._destination(described, invalid) if self.channel.is_pattern else None,
                self._area("message", "Message", 8, described, invalid=invalid, text=self._message),
                self._area(
                    "headers", "Headers, one on each line, as Name: value", 2, described, invalid=invalid
                ),
                tag(
                    "p",
                    tag("button", "Publish", type="submit", class_="primary"),
                    " ",
                    tag("button", "Only validate", type="submit", name="validate_only", value="1"),
                    class_="buttons",
                ),
                method="post",
                # Browsers scroll to it and move the focus there, so that screen readers read it first.
                action=f"#{_OUTCOME}",
                aria_label=f"Publish to {self.channel.name}",
                autocomplete="off",
            ),
        )

    def _destination(self, described: str | None, invalid: Iterable[str]) -> Html:
        id_ = f"{self._anchor}-destination"
        return join(
            tag("label", "Destination, which ", self.channel.address, " covers", for_=id_),
            tag(
                "input",
                id=id_,
                name="destination",
                value=self._fields.get("destination", ""),
                required=True,
                maxlength=MAX_DESTINATION,
                spellcheck="false",
                autocapitalize="none",
                aria_invalid="true" if "destination" in invalid else None,
                aria_describedby=described,
            ),
        )

    def _area(
        self,
        name: str,
        label: str,
        rows: int,
        described: str | None,
        *,
        invalid: Iterable[str],
        text: str | None = None,
    ) -> Html:
        id_ = f"{self._anchor}-{name}"
        value = self._fields.get(name, "") if text is None else text
        return join(
            tag("label", label, for_=id_),
            tag(
                "textarea",
                # A browser drops the first line break.
                "\n",
                value,
                id=id_,
                name=name,
                rows=rows,
                spellcheck="false",
                aria_invalid="true" if name in invalid else None,
                aria_describedby=described,
            ),
        )

    @property
    def _message(self) -> str:
        return self._fields.get("message", self.channel.sample.text)

    @property
    def _errors(self) -> Sequence[FieldError]:
        return () if self._outcome is None else self._outcome.errors

    def _schema(self) -> Html | None:
        text = self.channel.sample.schema_text
        if not text:
            return None
        return tag("details", tag("summary", "JSON Schema of the message"), tag("pre", tag("code", text)))


def _outcome(outcome: Outcome) -> Html:
    good = outcome.status < 400  # noqa: PLR2004 (the statuses of errors)
    facts: list[object] = []
    if outcome.correlation_id and outcome.published:
        facts.append(tag("p", "Correlation id ", tag("code", outcome.correlation_id), class_="note"))
    if outcome.published and outcome.channel is not None and outcome.channel.replies:
        reply = json.dumps(outcome.reply, indent=2, ensure_ascii=False)
        facts += [tag("p", "Reply", class_="note"), tag("pre", tag("code", reply))]
    items = [
        tag("li", tag("code", ".".join(map(str, error["loc"])) or "message"), " ", error["msg"])
        for error in outcome.errors
    ]
    return tag(
        "div",
        tag("p", outcome.detail, class_="good" if good else "bad"),
        tag("ul", *items) if items else None,
        *facts,
        class_="outcome",
        id=_OUTCOME,
        role="status" if good else "alert",
        tabindex="-1",
    )
