"""Detect that this process is one of several workers of one application, each of which subscribes."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import parent_process
from typing import Any

from faststream_adapters._utils.loggers import DEFAULT, Loggers

from .managed import ManagedBroker


def has_siblings() -> bool:
    """Return whether a main process started this one, which may run others with the same application.

    `faststream run`, uvicorn, granian and hypercorn start workers with `multiprocessing`, and gunicorn forks.
    """
    return _runs_in_gunicorn() or parent_process() is not None


def detect_workers(options: Mapping[str, Any]) -> str | None:
    """Return the setting that starts several workers, or None.

    Args:
        options: The options that the application was run with.
    """
    if "worker_id" in options:
        # `faststream run` sets it, and reads no environment variable.
        return None if options["worker_id"] is None else "faststream run --workers"
    with suppress(ValueError):
        if _runs_in_gunicorn() and (number := _gunicorn_workers()) is not None:
            return "gunicorn --workers" if number > 1 else None
        if int(os.environ.get("WEB_CONCURRENCY", "1")) > 1:
            return "WEB_CONCURRENCY"
    return None


def _runs_in_gunicorn() -> bool:
    return os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")


def _gunicorn_workers() -> int | None:
    import argparse

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("-w", "--workers", type=int)
    words = [*shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")), *sys.argv[1:]]
    with suppress(argparse.ArgumentError):
        number: int | None = parser.parse_known_args(words)[0].workers
        return number
    return None


def warn_about_workers(
    options: Mapping[str, Any], brokers: Sequence[ManagedBroker], loggers: Loggers = DEFAULT
) -> None:
    """Warn about subscribers whose messages every worker handles, and about a client id that workers share.

    Args:
        options: The options that the application was run with.
        brokers: The brokers that are started.
        loggers: Where the warnings are logged.
    """
    if (reason := detect_workers(options)) is None:
        return
    logger = loggers["lifecycle"]
    for managed in brokers:
        fields = {"broker": managed.driver.name}
        names = sorted(
            managed.driver.subscriber_name(subscriber)
            for subscriber in managed.broker.subscribers
            if subscriber.calls
            and managed.consumption.wants(subscriber)
            and managed.driver.is_load_balanced(subscriber) is False
        )
        if names:
            logger.warning(
                "There are several workers (%s), and each of them handles every message of %s. "
                "If each message is for one worker only, give these subscribers %s.",
                reason,
                ", ".join(names),
                managed.driver.load_balancing_hint,
                extra=fields,
            )
        # An id that contains the process id is unique.
        if (client_id := managed.driver.client_id) and str(os.getpid()) not in client_id:
            logger.warning(
                "There are several workers (%s), and this one connects as %r. The server disconnects a "
                "client when another one connects with its id: give each worker its own client_id.",
                reason,
                client_id,
                extra=fields,
            )
