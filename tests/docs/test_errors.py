"""docs/errors.md explains every message that the package raises or logs, and no other."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT
from tests.docs.messages import sites

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`+)(.+?)\1 \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
MESSAGES = [message for _, message, *_ in ROWS]

# Messages that the page leaves out.
OMITTED = {
    "module … has no attribute …": "Python's own words",
    "…": "the text of an error in a handler with @get or @post",
}
# Calls whose message is not written where they are.
ELSEWHERE = {
    "AssertionError(_describe(expected, document, path))",  # The differences between two documents.
    # The host's own.
    "HostStartError(redact(message.get('message') or f\"The host application's {stage} failed.\"))",
    "LookupError(operation)",  # No example is made for a pattern that cannot be read.
    "SetupError(message)",  # What the validation of a keyword has returned.
    "click.BadParameter(message)",  # The text of a SetupError.
    "SystemExit(status)",  # An exit code.
    # The texts of their callers.
    "InvalidFieldError(channel.reason, ['channel'])",
    "InvalidFieldError(str(error), ['channel'])",
    "InvalidFieldError(str(error), ['message'])",
    "logger.warning(text, self.driver.name, *args, extra={'broker': self.driver.name})",
    "self.logger.log(level, text, **fields)",
    "RuntimeError(self._refusal)",
    "_BrokerUnavailableError(type(broker).__name__, managed.not_up_error())",
    # Those of clients, servers, pydantic and PyYAML.
    "MasterNotFoundError(_SENTINEL_CLIENT.sub('', str(error)))",
    "RefusedError(str(error))",
    "RequestValidationError(fields.errors(error), body=body)",
    "SSLError(1, error.str())",
    "SSLError(1, match[1].strip().replace(' ', '_').upper())",
    "SSLError(1, msg)",
    "ValueError(str(error))",
    "_InvalidMessageError(error)",
}


def lines() -> dict[str, str]:
    """Return where each message is made, by its first line."""
    found = {site.text.partition("\n")[0]: site.where for site in sites() if site.text is not None}
    return {text: where for text, where in found.items() if text not in OMITTED}


def test_every_message_is_explained() -> None:
    missing = {text: where for text, where in lines().items() if text not in MESSAGES}
    assert missing == {}, "Add a row for each of these to docs/errors.md."


def test_no_message_is_explained_that_does_not_exist() -> None:
    assert sorted(set(MESSAGES) - set(lines())) == []
    assert len(MESSAGES) == len(set(MESSAGES))


def test_every_row_has_a_cause_and_a_remedy() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == len(ROWS)


def test_every_message_that_is_not_found_is_known() -> None:
    assert {site.code for site in sites() if site.text is None} == ELSEWHERE


def test_what_is_omitted_exists() -> None:
    texts = {site.text for site in sites()}
    assert set(OMITTED) <= texts
