"""Command-line options become settings of uvicorn; those without effect are logged."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError

from faststream_adapters import AsgiFastStream
from faststream_adapters._server.uvicorn import make_server, warn_about_unused

if TYPE_CHECKING:
    from collections.abc import Iterator

UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


@pytest.fixture(autouse=True)
def restore_loggers() -> Iterator[None]:
    """Reset and restore uvicorn's loggers, which each server configures for the whole process."""
    before = [
        (logger, logger.level, logger.handlers[:], logger.propagate)
        for logger in map(logging.getLogger, UVICORN)
    ]
    for logger, *_ in before:
        logger.handlers.clear()
        # pytest adds its own handlers to a logger that does not propagate.
        logger.propagate = True
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


def config_of(**options: Any) -> Any:
    return make_server(AsgiFastStream(), logging.INFO, options).config


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("access_log", "false", False),
        ("access_log", "False", False),
        ("access_log", "no", False),
        ("access_log", "off", False),
        ("access_log", "0", False),
        ("access_log", "true", True),
        ("access_log", True, True),
        ("limit_concurrency", "5", 5),
        ("limit_concurrency", 5, 5),
        ("ws_ping_interval", "2.5", 2.5),
        ("root_path", "/svc", "/svc"),
        ("root_path", "1", "1"),
        ("log_level", "debug", "debug"),
        ("timeout_graceful_shutdown", "7", 7),
        ("headers", [("x-name", "value")], [("x-name", "value")]),
        ("http", "h11", "h11"),
    ],
)
def test_options_are_converted_to_settings(option: str, value: Any, expected: object) -> None:
    actual = getattr(config_of(**{option: value}), option)
    assert actual == expected
    assert type(actual) is type(expected)


def test_options_that_are_not_settings_are_ignored() -> None:
    app = AsgiFastStream()
    # Some of them are settings of uvicorn that this server sets itself.
    options = {"env": "test", "worker_id": None, "app": "other:app", "factory": True, "workers": "3"}
    address = {"bind": ":1", "host": "h", "port": "no number", "uds": "u", "fd": "x"}
    config = make_server(app, logging.WARNING, {**options, **address, "reload": True}).config
    assert config.app is app
    assert (config.workers, config.reload, config.host, config.fd) == (1, False, "127.0.0.1", None)
    assert config.log_level == logging.WARNING


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"access_log": "perhaps"}, "--access-log must be true or false, not 'perhaps'."),
        ({"access_log": ""}, "--access-log must be true or false, not ''."),
        ({"limit_concurrency": "many"}, "--limit-concurrency must be a whole number, not 'many'."),
        ({"limit_concurrency": "1.5"}, "--limit-concurrency must be a whole number, not '1.5'."),
        ({"ws_ping_interval": "often"}, "--ws-ping-interval must be a number, not 'often'."),
        ({"limit_concurrency": True}, "--limit-concurrency needs one value."),
        ({"root_path": False}, "--root-path needs one value."),
        ({"root_path": ["/a", "/b"]}, "--root-path needs one value."),
    ],
)
def test_invalid_values_of_a_setting_are_setup_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SetupError) as raised:
        config_of(**options)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"http": "no_such_module:Protocol"}, "no_such_module"),
        ({"ssl_certfile": "missing.pem"}, "No such file"),
        ({"ssl_keyfile": "missing.pem"}, "AssertionError"),
        ({"lifespan": "sometimes"}, "sometimes"),
        ({"log_level": "talkative"}, "talkative"),
    ],
)
def test_values_that_uvicorn_rejects_are_setup_errors(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SetupError, match=f"^uvicorn does not accept these options: .*{named}"):
        config_of(**options)


# --- logging ---


def test_log_level_applies_to_the_loggers_of_uvicorn() -> None:
    assert config_of().log_level == logging.INFO
    assert logging.getLogger("uvicorn").handlers
    assert logging.getLogger("uvicorn.error").level == logging.INFO


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error"])
def test_configured_loggers_are_changed_only_by_an_explicit_log_level(name: str) -> None:
    logger = logging.getLogger(name)
    handler = logging.NullHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.CRITICAL)
    config = config_of()
    assert (config.log_config, config.log_level) == (None, None)
    assert logger.handlers == [handler]
    assert logger.level == logging.CRITICAL
    config_of(log_level="debug")
    assert logging.getLogger("uvicorn.error").level == logging.DEBUG


# --- options without effect ---


def warnings_of(caplog: pytest.LogCaptureFixture, *options: str, taken: tuple[str, ...] = ()) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "faststream.adapters"):
        warn_about_unused(options, taken)
    return [record.getMessage() for record in caplog.records]


def test_options_with_an_effect_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    address = ("bind", "host", "port", "uds", "fd")
    assert warnings_of(caplog, *address, "root_path", "env", "worker_id", taken=("env", "worker_id")) == []


def test_options_without_effect_are_logged_with_a_suggestion(caplog: pytest.LogCaptureFixture) -> None:
    reason = "has no effect: neither uvicorn nor the lifespan or a startup hook of the app takes it."
    assert warnings_of(caplog, "rot_path", "qqqq", "evn", taken=("env",)) == [
        f"--rot-path {reason} Did you mean --root-path?",
        f"--qqqq {reason}",
        f"--evn {reason} Did you mean --env?",
    ]


@pytest.mark.parametrize(
    "name", ["reload_dir", "reload_dirs", "reload_include", "workers", "app_dir", "factory"]
)
def test_options_of_the_uvicorn_command_are_logged(caplog: pytest.LogCaptureFixture, name: str) -> None:
    option = name.replace("_", "-")
    assert warnings_of(caplog, name) == [f"--{option} has no effect: it is an option of the uvicorn command."]


# --- without uvicorn ---


def test_the_error_for_missing_uvicorn_names_its_extra() -> None:
    code = """
import asyncio, sys
sys.modules["uvicorn"] = None
from faststream_adapters import AsgiFastStream
asyncio.run(AsgiFastStream().run())
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert process.returncode == 1
    assert process.stderr == (
        'Error: This needs uvicorn: install it with pip install "faststream-adapters[server]".\n'
    )
