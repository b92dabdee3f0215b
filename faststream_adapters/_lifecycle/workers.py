"""Is this process one of several that run the same application? Then each of them subscribes."""

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from .supervision import BrokerRun

logger = logging.getLogger("faststream.adapters")


def siblings(options: Mapping[str, Any]) -> str | None:
    """Return what says that this process is one of several workers, or None.

    Args:
        options: The options that the application was run with.
    """
    if "worker_id" in options:
        # `faststream run` asks nobody else how many there should be.
        return None if options["worker_id"] is None else "faststream run --workers"
    gunicorn = os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
    with suppress(ValueError):
        if gunicorn and (number := _of_gunicorn()) is not None:
            return "gunicorn --workers" if number > 1 else None
        if int(os.environ.get("WEB_CONCURRENCY", "1")) > 1:
            return "WEB_CONCURRENCY"
    return None


def _of_gunicorn() -> int | None:
    import argparse

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("-w", "--workers", type=int)
    words = [*shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")), *sys.argv[1:]]
    with suppress(argparse.ArgumentError):
        number: int | None = parser.parse_known_args(words)[0].workers
        return number
    return None


def warn_of_siblings(options: Mapping[str, Any], runs: Sequence[BrokerRun]) -> None:
    """Name in the log what workers should not have in common: messages, and the name of a client.

    Args:
        options: The options that the application was run with.
        runs: The brokers that are started.
    """
    if (reason := siblings(options)) is None:
        return
    for run in runs:
        names = sorted(
            subscriber.specification.call_name
            for subscriber in run.broker.subscribers
            if subscriber.calls and run.driver.shared(subscriber) is False
        )
        if names:
            logger.warning(
                "There are several workers (%s), and each of them handles every message of %s. "
                "If each message is for one worker only, give these subscribers %s.",
                reason,
                ", ".join(names),
                run.driver.sharing,
            )
        # One with the process's number in it is no other worker's.
        if (client_id := run.driver.exclusive_id) and str(os.getpid()) not in client_id:
            logger.warning(
                "There are several workers (%s), and this one connects as %r. The server cuts off who has "
                "that name when another one comes: give each worker its own client_id.",
                reason,
                client_id,
            )
