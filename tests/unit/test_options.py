"""Options: one declaration provides default, validation, signature and documentation."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

from faststream_adapters import (
    BrokerLifespan,
    make_liveness_asgi,
    make_ping_asgi,
    make_readiness_asgi,
    make_startup_asgi,
)
from faststream_adapters._asgi.endpoint import SchemaKeywords
from faststream_adapters._asyncapi.view import PageKeywords
from faststream_adapters._endpoints.options import LivenessKeywords, ProbeKeywords
from faststream_adapters._hosting.options import (
    DocsKeywords,
    EndpointKeywords,
    HostKeywords,
    PublishingKeywords,
)
from faststream_adapters._lifecycle.options import LifespanKeywords
from faststream_adapters._utils.options import complete, declared, seconds, split

GROUPS = [
    DocsKeywords,
    EndpointKeywords,
    LifespanKeywords,
    LivenessKeywords,
    PageKeywords,
    ProbeKeywords,
    SchemaKeywords,
]


def test_options_that_are_not_given_have_their_defaults() -> None:
    assert complete(LifespanKeywords, {}) == {
        "startup": "strict",
        "startup_timeout": None,
        "consume": True,
        "optional": (),
        "checks": (),
        "supervise": True,
        "drain_delay": 0.0,
        "shutdown_timeout": 20.0,
        "on_state_change": None,
        "on_health_change": None,
    }
    assert complete(LifespanKeywords, {"drain_delay": 3})["drain_delay"] == 3


def test_every_default_is_valid() -> None:
    for group in GROUPS:
        for name, option in declared(group).items():
            assert option.check is None or option.check(name, option.default) is None


def test_an_unknown_keyword_is_refused_with_a_suggestion() -> None:
    with pytest.raises(
        TypeError,
        match=r"^Unknown keyword 'start_up'\. Did you mean 'startup'\? Known keywords: .*drain_delay",
    ):
        complete(LifespanKeywords, {"start_up": "strict"})
    with pytest.raises(TypeError, match=r"^Unknown keyword 'zzz'\. Known keywords: "):
        split({"zzz": 1}, LifespanKeywords, EndpointKeywords)


def test_keywords_are_split_by_the_group_that_declares_them() -> None:
    given: HostKeywords = {"startup": "background", "ping_path": "/ping", "probe_ttl": 2.0}
    assert split(given, LifespanKeywords, EndpointKeywords) == [
        {"startup": "background"},
        {"ping_path": "/ping", "probe_ttl": 2.0},
    ]


def test_every_keyword_of_a_host_is_in_one_group() -> None:
    groups = (LifespanKeywords, EndpointKeywords, PublishingKeywords, DocsKeywords)
    names = [name for group in groups for name in declared(group)]
    assert len(names) == len(set(names))
    assert set(declared(HostKeywords)) | set(declared(DocsKeywords)) == set(names)


@pytest.mark.parametrize("value", [True, "1", None, -0.1, float("nan"), 11.0])
def test_invalid_numbers_of_seconds_are_refused(value: Any) -> None:
    wrong = seconds(maximum=10.0)("ttl", value)
    assert wrong is not None
    assert wrong.startswith("ttl must be a number of seconds from 0, up to 10.0, not ")


@pytest.mark.parametrize(
    ("function", "group"),
    [
        (BrokerLifespan, LifespanKeywords),
        (make_ping_asgi, ProbeKeywords),
        (make_liveness_asgi, LivenessKeywords),
        (make_readiness_asgi, ProbeKeywords),
        (make_startup_asgi, ProbeKeywords),
    ],
)
def test_the_signature_shows_the_options(function: Any, group: type) -> None:
    parameters = inspect.signature(function).parameters.values()
    shown = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert shown == {name: option.default for name, option in declared(group).items()}
    assert not [each for each in parameters if each.kind is each.VAR_KEYWORD]


@pytest.mark.parametrize("group", GROUPS)
def test_the_docstring_lists_the_options(group: type) -> None:
    text = inspect.getdoc(group) or ""
    for name, option in declared(group).items():
        assert f"    {name}: {option.text}" in text


def test_an_invalid_value_is_refused_by_the_function_that_takes_it() -> None:
    with pytest.raises(SetupError, match=r"consume must be True, False or a list of subscribers.*, not 1"):
        BrokerLifespan(NatsBroker(), consume=1)  # type: ignore[arg-type]
    with pytest.raises(SetupError, match=r"^ok_status must be an HTTP status from 200 to 599, not True\."):
        make_ping_asgi(NatsBroker(), ok_status=True)
