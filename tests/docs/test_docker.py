"""docs/docker.md: the files, and the commands in them."""

from __future__ import annotations

import json
import re
import shlex
import sys
from typing import TYPE_CHECKING, Any

import yaml

from faststream_adapters import BrokerLifespan
from faststream_adapters._endpoints.options import PROBE_TIMEOUT
from faststream_adapters.probe import main
from tests.docs.blocks import ROOT, code_blocks, load
from tests.harness.servers.asgi import AppServer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.harness.servers.nats import NatsServer

PAGE = "docs/docker.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "docker"
DOCKERFILE = (EXAMPLE / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (EXAMPLE / "compose.yaml").read_text(encoding="utf-8")
STEPS = dict(line.split(" ", 1) for line in DOCKERFILE.replace("\\\n    ", "").splitlines())
"""The instructions of the Dockerfile, each of which occurs once."""

ORDERS: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]["orders"]
HEALTHCHECK = re.fullmatch(r"(?P<options>(--\S+ )+)CMD (?P<command>\[.*\])", STEPS["HEALTHCHECK"])
assert HEALTHCHECK is not None
CHECK: list[str] = json.loads(HEALTHCHECK["command"])
OPTIONS = dict(option[2:].split("=") for option in HEALTHCHECK["options"].split())
PROBE = ["python", "-m", "faststream_adapters.probe"]
PORT = 8000


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


def test_the_page_shows_the_files() -> None:
    (dockerfile,) = code_blocks(PAGE, "dockerfile").values()
    (compose,) = code_blocks(PAGE, "yaml").values()
    assert (dockerfile.code, compose.code) == (DOCKERFILE, COMPOSE)


def test_both_files_check_alike() -> None:
    healthcheck = ORDERS["healthcheck"]
    assert healthcheck.pop("test") == ["CMD", *CHECK]
    assert {name.replace("_", "-"): str(value) for name, value in healthcheck.items()} == OPTIONS


def test_the_time_limits_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    lifespan = load((EXAMPLE / "main.py").read_text(encoding="utf-8"), tmp_path).app.broker_lifespan
    assert isinstance(lifespan, BrokerLifespan)
    timeout = float(re.findall(r"within `--timeout`, (\d+) s unless given", TEXT)[0])
    assert PROBE_TIMEOUT < timeout < seconds(OPTIONS["timeout"]) <= seconds(OPTIONS["interval"])
    assert f"`probe_timeout`, {PROBE_TIMEOUT:g} s" in TEXT
    assert seconds(OPTIONS["start-period"]) > lifespan.startup_timeout
    assert f"`startup_timeout`, {lifespan.startup_timeout:g} s" in " ".join(TEXT.split())
    assert seconds(ORDERS["stop_grace_period"]) > lifespan.drain_delay + lifespan.shutdown_timeout
    assert f"More than shutdown_timeout, {lifespan.shutdown_timeout:g} s" in COMPOSE


def test_the_commands_check_the_application(nats: NatsServer, capsys: pytest.CaptureFixture[str]) -> None:
    (over_http, through_socket) = (
        shlex.split(line) for line in next(iter(code_blocks(PAGE, "sh").values())).code.splitlines()
    )
    assert over_http == CHECK
    serve = [word.replace("0.0.0.0", "127.0.0.1") for word in json.loads(STEPS["CMD"])]
    serve = [word.replace(str(PORT), "{port}") for word in serve]
    with AppServer(
        [sys.executable, "-m", *serve],
        app=EXAMPLE / "main.py",
        env={"NATS_URL": nats.url},
        ready_path="/readyz",
    ) as server:

        def check() -> tuple[int, str, str]:
            command = [word.replace(str(PORT), str(server.port)) for word in CHECK]
            assert command[: len(PROBE)] == PROBE
            return (main(command[len(PROBE) :]), *capsys.readouterr())

        assert check() == (0, "ok\n", "")
        nats.freeze()
        assert check() == (1, "", "503 timeout\n")
        assert "such as `503 timeout`" in TEXT
        nats.thaw()
    socket = AppServer(
        [sys.executable, "-m", "uvicorn", "main:app", "--uds", "{directory}/app.sock"],
        app=EXAMPLE / "main.py",
        env={"NATS_URL": nats.url},
        ready_path=None,
    )
    with socket as server:
        server.wait_output("Uvicorn running on unix socket", 20)
        command = [word.replace("/run", str(server.directory)) for word in through_socket]
        assert command[: len(PROBE)] == PROBE
        assert (main(command[len(PROBE) :]), *capsys.readouterr()) == (0, "ok\n", "")
