"""The words of the status page."""

from collections.abc import Mapping

from faststream_adapters._brokers.codes import Code
from faststream_adapters._endpoints.report import Status
from faststream_adapters._lifecycle.history import ChangeKind
from faststream_adapters._lifecycle.options import State

Words = Mapping[Code | State, str]

BROKER: Words = {
    "ok": "Replies",
    "timeout": "No reply",
    "unreachable": "Unreachable",
    "auth_failed": "Credentials rejected",
    "closed": "Connection closed",
    "not_started": "Not started",
    "error": "Error",
}

SUBSCRIBER: Words = {
    "ok": "Consumes",
    "stopped": "Stopped",
    "paused": "Paused",
    "not_started": "Not started",
    "task_failed": "Task ended",
    "consumer_missing": "Consumer missing",
    "consumer_mismatch": "Mismatch",
    "consumer_paused": "Paused on the server",
    "not_permitted": "Not permitted",
    "timeout": "No report",
    "error": "Error",
}

CHECK: Words = {"ok": "Passes", "check_failed": "Fails", "not_started": "No result yet"}

LIFESPAN: Words = {
    "stopped": "Stopped",
    "starting": "Starting",
    "running": "Running",
    "draining": "Draining",
    "failed": "Failed",
}

OF_KIND: Mapping[ChangeKind, Words] = {
    "lifespan": LIFESPAN,
    "broker": BROKER,
    "subscriber": SUBSCRIBER,
    "check": CHECK,
}

PLURALS: Mapping[ChangeKind, str] = {"broker": "brokers", "subscriber": "subscribers", "check": "checks"}

BROKER_ADVICE: Mapping[Code, str] = {
    "timeout": "The server may be frozen or overloaded, or the network loses packets.",
    "unreachable": "Check that the server runs, and that this host can reach its address.",
    "auth_failed": "Check the user, the password, the token or the certificate.",
    "closed": "Supervision restarts the broker. Without it, restart the process.",
    "error": "The log says why.",
}

SUBSCRIBER_ADVICE: Mapping[Code, str] = {
    "task_failed": "The log says why. Supervision restarts it.",
    "consumer_missing": "Supervision restarts it as soon as the server has what it needs.",
    "consumer_mismatch": "The log names both. Correct the server, or deploy what matches it.",
    "consumer_paused": "Resume it on the server.",
    "not_permitted": "Check the permissions of the user on the server.",
    "timeout": "The server may be overloaded.",
    "error": "The log says why.",
}

CHECK_ADVICE = "It raised an error, returned False or took too long. The log says why."

VERDICTS: Mapping[Code, tuple[str, str]] = {
    "starting": ("Starting", "The process waits for its brokers, and consumes nothing before they are up."),
    "draining": (
        "Draining",
        "The process takes no new messages, and stops when its handlers have finished.",
    ),
    "failed": ("Failed", "The start failed, and nothing is consumed. The log says why."),
    "no_brokers": ("Not ready", "The application has no broker."),
}
"""Headings and explanations of verdicts that concern the whole process."""

STOPPED = ("Stopped", "The brokers are not started, and nothing is consumed.")

RUNNING: Mapping[Status, tuple[str, str]] = {
    "pass": ("Ready", "All brokers reply, and all subscribers that should consume do."),
    "warn": ("Ready, with warnings", "What is required works. The warnings concern the rest."),
    "fail": ("Not ready", "Something that is required does not work."),
}
"""Headings and explanations while the lifespan runs."""
