"""Faults in whole processes, observed over HTTP, with real signals."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import nats as nats_py
import pytest
import uvicorn
from packaging.version import Version

from tests.faults.apps import FASTAPI, STANDALONE, App, in_each_host, standalone_first
from tests.faults.matrix import Fault, row
from tests.harness.servers import HOST, hold_port, poll
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nats import NatsFactory, NatsServer

SECRET = "the-password-in-the-url"
"""The password in the URL of the broker. No output may contain it."""

WHERE = (STANDALONE.where, FASTAPI.where)
KUBELET_TIMEOUT = 1.0
SIGTERM_CODE = -15
STARTUP_FAILED = 3
MESSAGES = 200


@pytest.fixture
def broker(nats_factory: NatsFactory) -> NatsServer:
    """Return a server with JetStream that requires the password."""
    return nats_factory(jetstream=True, user="user", password=SECRET)


@contextlib.contextmanager
def serving(
    app: App,
    url: str,
    *,
    command: str = "uvicorn",
    ready_path: str | None = "/live",
    **environment: object,
) -> Iterator[AppServer]:
    """Run an application in a separate process, and check that its output does not contain the password."""
    env = {"NATS_URL": url, **{name: str(value) for name, value in environment.items()}}
    if command == "uvicorn":
        server = AppServer.uvicorn(app.source, env=env, ready_path=ready_path)
    else:
        words = [sys.executable, "-m", "faststream", "run", "main:app", "--host", HOST, "--port", "{port}"]
        server = AppServer(words, app=app.source, env=env, ready_path=ready_path)
    with server:
        yield server
        assert SECRET not in server.output()


def request(
    server: AppServer,
    path: str,
    *,
    method: str = "GET",
    body: object = None,
    timeout: float = 30.0,
) -> tuple[int, str]:
    """Send a request, and return the status with the headers and the body as text.

    Without a response within `timeout` seconds, return 0 and the name of the error.
    """
    connection = http.client.HTTPConnection(HOST, server.port, timeout=timeout)
    try:
        payload = None if body is None else json.dumps(body)
        headers = {"Connection": "close", "Content-Type": "application/json"}
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        return response.status, f"{response.getheaders()} {response.read().decode()}"
    except (OSError, http.client.HTTPException) as error:
        return 0, type(error).__name__
    finally:
        connection.close()


def status(server: AppServer, path: str) -> int:
    """Return the status as a kubelet gets it: 0 if there is no response within a second."""
    return request(server, path, timeout=KUBELET_TIMEOUT)[0]


def wait_for(server: AppServer, path: str, expected: int, seconds: float = 40.0) -> None:
    assert poll(lambda: status(server, path) == expected, seconds), server.error(f"{path} is not {expected}")


def details(server: AppServer, expected: int) -> dict[str, Any]:
    """Return the details of readiness, and check that they do not contain the password."""
    code, text = request(server, "/details/")
    assert code == expected
    assert SECRET not in text
    document: dict[str, Any] = json.loads(text[text.index("{") :])
    return document


def publish(server: AppServer, job: int | str) -> None:
    """Publish through the application."""
    code, text = request(server, "/jobs", method="POST", body=job)
    assert code == 202, text


def round_trip(server: AppServer, job: int, seconds: float = 30.0) -> None:
    """Publish a message through the application, and wait until its handler has finished."""
    publish(server, job)
    server.wait_output(f"handled {job}\n", seconds)


def jobs(server: AppServer, what: str = "handled") -> list[int]:
    """Return the numbers of the messages that the output reports, in order."""
    # A line without a line end is still being written.
    lines = server.output().splitlines(keepends=True)
    return [int(line.split()[1]) for line in lines if line.startswith(f"{what} ") and line.endswith("\n")]


@contextlib.contextmanager
def alive(server: AppServer) -> Iterator[None]:
    """Check liveness over HTTP all the time. It must always be 200."""
    over = threading.Event()
    seen: list[int] = []

    def check() -> None:
        while not over.wait(0.05):
            # The long timeout allows for a busy machine.
            seen.append(request(server, "/live")[0])

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield
        poll(lambda: seen, 10.0)
    finally:
        over.set()
        thread.join()
    assert set(seen) == {200}


def assert_ended(server: AppServer, code: int) -> None:
    """Check that the process shut down, exited with this code, and left no child process behind."""
    assert server.wait(20.0) == code
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)
    assert "state stopped" in server.output() or "state failed" in server.output()
    assert server.output().count("the host is down\n") == 1


# --- Messages in flight at the shutdown ---


class Stream:
    """The stream `jobs` and its consumer `workers` on the server."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def _publish(self, numbers: range) -> None:
        connection = await nats_py.connect(self.url)
        stream = connection.jetstream()
        for number in numbers:
            await stream.publish("jobs", str(number).encode())
        await connection.close()

    def publish(self, numbers: range) -> None:
        """Publish numbered messages, and wait until the server has acknowledged all of them."""
        asyncio.run(self._publish(numbers))

    async def _info(self) -> Any:
        connection = await nats_py.connect(self.url)
        info = await connection.jetstream().consumer_info("jobs", "workers")
        await connection.close()
        return info

    def deliveries(self) -> int:
        """Return the number of deliveries, including redeliveries."""
        return int(asyncio.run(self._info()).delivered.consumer_seq)

    def unacknowledged(self) -> int:
        """Return the number of messages that were delivered and are not acknowledged."""
        return int(asyncio.run(self._info()).num_ack_pending)

    def ack_floor(self) -> int:
        """Return the highest number in the stream up to which all messages are acknowledged."""
        return int(asyncio.run(self._info()).ack_floor.stream_seq)


KINDS: dict[str, dict[str, Any]] = {
    # Each is slow enough for SIGTERM to arrive while messages are in flight.
    "push": {"KIND": "push", "MAX_WORKERS": 1, "WORK": 0.01},
    "push, 4 workers": {"KIND": "push", "MAX_WORKERS": 4, "WORK": 0.04},
    "pull": {"KIND": "pull", "MAX_WORKERS": 1, "WORK": 0.05, "BATCH": 5},
    "pull, 4 workers": {"KIND": "pull", "MAX_WORKERS": 4, "WORK": 0.04, "BATCH": 50},
    "pull in batches": {"KIND": "batch", "WORK": 0.1, "BATCH": 20},
}
FIRST = pytest.param(STANDALONE, "push", id="standalone-push")
# The host does not affect how messages are consumed, so two kinds are enough for FastAPI.
GRID = [(STANDALONE, kind) for kind in KINDS if kind != "push"]
GRID += [(FASTAPI, "push"), (FASTAPI, "pull, 4 workers")]
REST = [pytest.param(*each, marks=pytest.mark.full) for each in GRID]


@row(
    "SIGTERM with 200 JetStream messages in flight",
    "handlers finish the messages in flight, the next process receives the rest; uvicorn's own exit code",
    where=WHERE,
    counts="messages finished and acknowledged exactly once",
)
@pytest.mark.parametrize(("app", "kind"), [FIRST, *REST], ids=str)
def test_each_message_is_finished_and_acknowledged_once(
    broker: NatsServer,
    fault: Fault,
    app: App,
    kind: str,
) -> None:
    fault.at(app.where)
    stream = Stream(broker.url)
    pushed = kind.startswith("push")
    # Messages that were delivered and not handled are redelivered after this time.
    options = {**KINDS[kind], "ACK_WAIT": 30 if pushed else 3}
    with serving(app, broker.url, **options) as first:
        stream.publish(range(MESSAGES))
        if pushed:
            assert poll(lambda: stream.deliveries() == MESSAGES, 20.0)
        assert poll(lambda: len(jobs(first)) >= 20, 20.0)
        assert len(jobs(first)) < MESSAGES
        first.terminate()
        assert first.wait(30.0) == SIGTERM_CODE
        finished = jobs(first)
        # No handler was interrupted, and exactly the finished messages are acknowledged.
        assert sorted(jobs(first, "handling")) == sorted(finished)
        delivered = stream.deliveries()
        assert poll(lambda: stream.unacknowledged() == delivered - len(finished), 10.0)
        if pushed:
            assert len(finished) == MESSAGES
        with serving(app, broker.url, **options) as second:
            assert poll(lambda: stream.ack_floor() == MESSAGES, 60.0)
            assert sorted(finished + jobs(second)) == [*range(MESSAGES)]
    # Only the messages that the first process had received and not started are redelivered.
    assert stream.deliveries() - MESSAGES == delivered - len(finished)
    fault.counted(MESSAGES, of=MESSAGES)


@pytest.mark.full
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("pull")])
def test_fetched_messages_of_a_pull_subscriber_are_finished(broker: NatsServer, kind: str) -> None:
    stream = Stream(broker.url)
    with serving(STANDALONE, broker.url, **KINDS[kind]) as server:
        stream.publish(range(MESSAGES))
        assert poll(lambda: len(jobs(server)) >= 20, 20.0)
        server.terminate()
        server.wait(30.0)
        acknowledged = poll(lambda: stream.unacknowledged() == 0, 5.0)
        assert (acknowledged, "Traceback" in server.output()) == (True, False)


@row(
    "SIGTERM, and handlers that take longer than `shutdown_timeout`",
    "the process ends in time; interrupted messages are not acknowledged, and are redelivered",
    where=WHERE,
    counts="interrupted messages finished by the next process",
)
@pytest.mark.full
@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (STANDALONE, "push, 4 workers"),
        (STANDALONE, "pull"),
        (STANDALONE, "pull, 4 workers"),
        (FASTAPI, "push"),
    ],
    ids=str,
)
def test_interrupted_messages_are_redelivered(broker: NatsServer, fault: Fault, app: App, kind: str) -> None:
    fault.at(app.where)
    stream = Stream(broker.url)
    options = {**KINDS[kind], "ACK_WAIT": 3}
    with serving(app, broker.url, **{**options, "WORK": 60, "SHUTDOWN_TIMEOUT": 1}) as first:
        stream.publish(range(10))
        first.wait_output("handling ")
        first.terminate()
        assert first.wait(10.0) == SIGTERM_CODE
        assert jobs(first) == []
    assert stream.ack_floor() == 0
    with serving(app, broker.url, **options) as second:
        assert poll(lambda: stream.ack_floor() == 10, 60.0)
        assert sorted(jobs(second)) == [*range(10)]
    fault.counted(10, of=10)


@row(
    "SIGKILL with 200 JetStream messages in flight",
    "the next process receives the messages that were not acknowledged; only those in flight may be "
    "handled twice",
    where=WHERE,
    counts="messages finished and acknowledged",
)
@pytest.mark.full
@pytest.mark.parametrize(
    ("app", "kind"),
    [(STANDALONE, "push"), (STANDALONE, "pull, 4 workers"), (FASTAPI, "push")],
    ids=str,
)
def test_unacknowledged_messages_are_redelivered_after_sigkill(
    broker: NatsServer, fault: Fault, app: App, kind: str
) -> None:
    fault.at(app.where)
    stream = Stream(broker.url)
    options = {**KINDS[kind], "ACK_WAIT": 3}
    with serving(app, broker.url, **options) as first:
        stream.publish(range(MESSAGES))
        assert poll(lambda: len(jobs(first)) >= 20, 20.0)
        first.kill()
        finished = jobs(first)
    assert len(finished) < MESSAGES
    with serving(app, broker.url, **options) as second:
        assert poll(lambda: stream.ack_floor() == MESSAGES, 60.0)
        finished_later = jobs(second)
    assert {*finished, *finished_later} == {*range(MESSAGES)}
    # Only messages that were finished and not yet acknowledged are handled twice.
    assert len(finished) + len(finished_later) - MESSAGES <= KINDS[kind]["MAX_WORKERS"]
    fault.counted(MESSAGES, of=MESSAGES)


@pytest.mark.full
@row(
    "SIGTERM while the server is down or frozen",
    "the process ends within `shutdown_timeout`, with uvicorn's own exit code",
    where=WHERE,
)
@pytest.mark.parametrize(
    ("app", "kind", "frozen"),
    [
        (STANDALONE, "push", True),
        (STANDALONE, "pull", True),
        (STANDALONE, "push", False),
        (STANDALONE, "pull, 4 workers", False),
        (FASTAPI, "push", True),
        (FASTAPI, "pull", False),
    ],
    ids=str,
)
def test_the_process_ends_while_the_broker_is_down(
    broker: NatsServer,
    fault: Fault,
    app: App,
    kind: str,
    *,
    frozen: bool,
) -> None:
    fault.at(app.where)
    with serving(app, broker.url, **{**KINDS[kind], "WORK": 0, "SHUTDOWN_TIMEOUT": 4}) as server:
        round_trip(server, 1)
        if frozen:
            broker.freeze()
        else:
            broker.kill()
        wait_for(server, "/ready", 503)
        fault.happened()
        server.terminate()
        assert_ended(server, SIGTERM_CODE)
        fault.not_ready()
        broker.thaw()
        assert "Traceback" not in server.output()


# --- Signals during the startup ---


class StartupSignal(NamedTuple):
    """A signal during the startup of an application, and the expected exit code."""

    app: App
    command: str
    signal: signal.Signals
    code: int

    def send(self, server: AppServer) -> None:
        """Send the signal."""
        server.process.send_signal(self.signal)


startup_signals = pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            StartupSignal(STANDALONE, "uvicorn", signal.SIGTERM, -15), id="standalone-uvicorn-SIGTERM"
        ),
        *(
            pytest.param(case, id=f"{case.app}-{case.command}-{case.signal.name}", marks=pytest.mark.full)
            for case in (
                StartupSignal(STANDALONE, "uvicorn", signal.SIGINT, 0),
                StartupSignal(STANDALONE, "faststream run", signal.SIGTERM, -15),
                StartupSignal(STANDALONE, "faststream run", signal.SIGINT, 130),
                StartupSignal(FASTAPI, "uvicorn", signal.SIGTERM, -15),
                StartupSignal(FASTAPI, "uvicorn", signal.SIGINT, 0),
            )
        ),
    ],
)


needs_shutdown_after_signal = pytest.mark.skipif(
    Version(uvicorn.__version__) < Version("0.50"),
    reason="Older releases of uvicorn do not run the shutdown after a signal during the startup.",
)


@pytest.fixture
def refusing_url() -> Iterator[str]:
    """Return the URL of a broker that refuses connections."""
    port, held = hold_port()
    with held or contextlib.nullcontext():
        yield f"nats://user:{SECRET}@{HOST}:{port}"


@pytest.mark.full
@row(
    "SIGTERM or Ctrl-C while a strict startup waits for a broker that is down",
    "uvicorn reacts after the startup, which fails after `startup_timeout`; exit code 3",
    where=WHERE,
)
@needs_shutdown_after_signal
@startup_signals
def test_a_signal_does_not_interrupt_a_strict_startup(
    refusing_url: str,
    fault: Fault,
    case: StartupSignal,
) -> None:
    fault.at(case.app.where)
    with serving(case.app, refusing_url, command=case.command, ready_path=None, STARTUP_TIMEOUT=2) as server:
        server.wait_output("is not up yet; waiting for it, for at most 2 s.", 20.0)
        fault.happened()
        case.send(server)
        assert_ended(server, STARTUP_FAILED)
        fault.not_ready()
        # The signal did not interrupt the startup.
        assert "could not be started within 2 s: the connection was refused." in server.output()
        # Starlette logs a failed startup with the traceback.
        assert case.app is not STANDALONE or "Traceback" not in server.output()


@pytest.mark.full
@row(
    "SIGTERM or Ctrl-C while a background startup waits for a broker that is down",
    "the process ends at once, with uvicorn's own exit code",
    where=WHERE,
)
@startup_signals
def test_a_signal_interrupts_a_background_startup(
    refusing_url: str,
    fault: Fault,
    case: StartupSignal,
) -> None:
    fault.at(case.app.where)
    with serving(case.app, refusing_url, command=case.command, STARTUP="background") as server:
        assert status(server, "/ready") == 503
        assert details(server, 503)["code"] == "starting"
        case.send(server)
        assert_ended(server, case.code)
        assert "state running" not in server.output()
        assert "Traceback" not in server.output()


@pytest.mark.full
@row(
    "SIGTERM or Ctrl-C while a hook or the host's own lifespan is slow to start",
    "uvicorn reacts after the startup: the brokers start and stop again; the exit code is uvicorn's own",
    where=WHERE,
)
@pytest.mark.parametrize("slow", ["HOOK", "HOST"])
@needs_shutdown_after_signal
@startup_signals
def test_a_signal_is_handled_after_a_slow_startup(
    broker: NatsServer,
    fault: Fault,
    case: StartupSignal,
    slow: str,
) -> None:
    fault.at(case.app.where)
    with serving(case.app, broker.url, command=case.command, ready_path=None, **{slow: 1}) as server:
        server.wait_output(f"the {slow.lower()} waits\n", 20.0)
        case.send(server)
        assert_ended(server, case.code)
        assert server.output().count("state running\n") == 1
        assert "Traceback" not in server.output()


@row(
    "SIGTERM with `drain_delay`, under `faststream run`",
    "503 while it still listens; delivered messages are finished and acknowledged; exit code -15",
    where=STANDALONE.where,
    counts="messages finished and acknowledged exactly once",
)
@pytest.mark.full
def test_the_command_line_drains_on_sigterm(broker: NatsServer, fault: Fault) -> None:
    stream = Stream(broker.url)
    options: dict[str, Any] = {"KIND": "push", "WORK": 0.05, "DRAIN_DELAY": 1.5}
    with serving(STANDALONE, broker.url, command="faststream run", **options) as server:
        assert status(server, "/ready") == 200
        stream.publish(range(30))
        assert poll(lambda: stream.deliveries() == 30, 20.0)
        fault.happened()
        server.terminate()
        wait_for(server, "/ready", 503)
        fault.not_ready()
        assert status(server, "/live") == 200
        assert details(server, 503)["code"] == "draining"
        assert server.wait(20.0) == SIGTERM_CODE
        assert jobs(server) == [*range(30)]
    assert stream.ack_floor() == stream.deliveries() == 30
    fault.counted(30, of=30)


# --- Faults of the server ---


@pytest.mark.full
@row(
    "Server killed and restarted",
    "503 until the server is up again; messages published meanwhile are kept until then; liveness stays 200",
    where=WHERE,
    counts="messages handled",
)
@pytest.mark.parametrize("kind", ["core", "push", "pull"])
@standalone_first
def test_readiness_fails_while_the_server_is_down(
    broker: NatsServer, fault: Fault, app: App, kind: str
) -> None:
    fault.at(app.where)
    with serving(app, broker.url, KIND=kind, BATCH=5) as server, alive(server):
        round_trip(server, 1)
        fault.happened()
        broker.kill()
        wait_for(server, "/ready", 503)
        fault.not_ready()
        assert details(server, 503)["code"] == "unreachable"
        publish(server, 2)
        fault.repaired()
        broker.restart()
        wait_for(server, "/ready", 200)
        round_trip(server, 3)
        fault.ready()
        assert poll(lambda: set(jobs(server)) == {1, 2, 3}, 10.0)
    fault.counted(3, of=3)


@row(
    "Server frozen and thawed",
    "503 within `probe_timeout`, 200 after the thaw; liveness stays 200",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_readiness_fails_while_the_server_is_frozen(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url, KIND="push") as server, alive(server):
        round_trip(server, 1)
        fault.happened()
        broker.freeze()
        wait_for(server, "/ready", 503)
        fault.not_ready()
        assert details(server, 503)["code"] == "timeout"
        fault.repaired()
        broker.thaw()
        wait_for(server, "/ready", 200)
        round_trip(server, 2)
        fault.ready()


@row(
    "Server flapping, a second up and a second down, for 10 s",
    "503 while the server is down; liveness stays 200",
    where=WHERE,
    counts="acknowledged messages handled",
)
@pytest.mark.full
@in_each_host
def test_messages_survive_a_flapping_server(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    stream = Stream(broker.url)
    never = threading.Event()
    with serving(app, broker.url, KIND="push", ACK_WAIT=2) as server, alive(server):
        round_trip(server, 1000)
        for number in range(5):
            broker.kill()
            # The fault lasts for a fixed time.
            never.wait(1.0)
            fault.repaired()
            broker.restart()
            stream.publish(range(number, number + 1))
            never.wait(1.0)
        wait_for(server, "/ready", 200)
        round_trip(server, 1001)
        fault.ready()
        # Messages that were delivered to a broken connection are redelivered.
        assert poll(lambda: {*range(5)} <= set(jobs(server)), 20.0)
    fault.counted(5, of=5)


@row(
    'Server down at startup, up late (`startup="background"`)',
    "serves HTTP at once, 503 until the server is up; liveness stays 200",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_a_background_startup_succeeds_when_the_server_comes_up(
    broker: NatsServer, fault: Fault, app: App
) -> None:
    fault.at(app.where)
    broker.stop()
    fault.happened()
    with serving(app, broker.url, KIND="push", STARTUP="background") as server, alive(server):
        assert status(server, "/ready") == status(server, "/startup") == 503
        fault.not_ready()
        fault.repaired()
        broker.start()
        wait_for(server, "/ready", 200)
        round_trip(server, 1)
        fault.ready()
        assert status(server, "/startup") == 200


@row(
    'Wrong password at startup, corrected later (`startup="background"`)',
    "serves HTTP at once, 503 until the login works; liveness stays 200",
    where=WHERE,
)
@standalone_first
def test_a_background_startup_succeeds_when_the_password_is_corrected(
    nats_factory: NatsFactory, fault: Fault, app: App
) -> None:
    fault.at(app.where)
    broker = nats_factory(user="user", password="another one")
    url = f"nats://user:{SECRET}@{HOST}:{broker.port}"
    fault.happened()
    with serving(app, url, STARTUP="background") as server, alive(server):
        assert details(server, 503)["code"] == "starting"
        fault.not_ready()
        server.wait_output("is not up: the credentials were rejected (", 20.0)
        fault.repaired()
        broker.password = SECRET
        broker.restart()
        wait_for(server, "/ready", 200)
        round_trip(server, 1)
        fault.ready()


@row(
    "Wrong password at a strict startup",
    "exit code 3, and one line that says why, without the password",
    where=WHERE,
)
@standalone_first
def test_a_strict_startup_fails_while_the_password_is_wrong(
    nats_factory: NatsFactory, fault: Fault, app: App
) -> None:
    fault.at(app.where)
    broker = nats_factory(user="user", password="another one")
    url = f"nats://user:{SECRET}@{HOST}:{broker.port}"
    fault.happened()
    with serving(app, url, ready_path=None, STARTUP_TIMEOUT=2) as server:
        assert server.wait(20.0) == STARTUP_FAILED
        fault.not_ready()
        message = f"NatsBroker {broker.safe_url} could not be started"
        lines = [line for line in server.output().splitlines() if message in line]
        assert len(lines) == 1
        assert "the credentials were rejected (" in lines[0]


@row(
    "Password changed while the service runs, corrected later",
    "503 until the login works again; liveness stays 200",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_readiness_fails_while_the_password_is_wrong(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url, KIND="pull") as server, alive(server):
        round_trip(server, 1)
        fault.happened()
        broker.password = "another one"
        broker.restart()
        wait_for(server, "/ready", 503)
        fault.not_ready()
        assert poll(lambda: details(server, 503)["code"] == "auth_failed", 30.0)
        fault.repaired()
        broker.password = SECRET
        broker.restart()
        wait_for(server, "/ready", 200)
        round_trip(server, 2)
        fault.ready()


@row(
    "One of two brokers down",
    "503, while the other broker keeps working; liveness stays 200",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_a_broker_consumes_while_the_other_is_down(
    broker: NatsServer,
    nats_factory: NatsFactory,
    fault: Fault,
    app: App,
) -> None:
    fault.at(app.where)
    other = nats_factory(user="user", password=SECRET)
    with serving(app, broker.url, OTHER_URL=other.url) as server, alive(server):
        fault.happened()
        other.kill()
        wait_for(server, "/ready", 503)
        fault.not_ready()
        states = [each["status"] for each in details(server, 503)["checks"]["NatsBroker"]]
        assert sorted(states) == ["fail", "pass", "pass"]
        round_trip(server, 1)
        fault.repaired()
        other.restart()
        wait_for(server, "/ready", 200)
        round_trip(server, 2)
        fault.ready()


@row(
    "One of two brokers down, an `optional` one",
    "stays 200; the details show `warn`",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_readiness_succeeds_while_an_optional_broker_is_down(
    broker: NatsServer,
    nats_factory: NatsFactory,
    fault: Fault,
    app: App,
) -> None:
    fault.at(app.where)
    other = nats_factory(user="user", password=SECRET)
    other.stop()
    fault.happened()
    with serving(app, broker.url, OTHER_URL=other.url, OPTIONAL=1) as server, alive(server):
        assert details(server, 200)["status"] == "warn"
        fault.not_ready()
        assert status(server, "/ready") == 200
        round_trip(server, 1)
        fault.repaired()
        other.start()
        assert poll(lambda: details(server, 200)["status"] == "pass", 30.0)
        round_trip(server, 2)
        fault.ready()


# --- Faults of a handler ---


@row(
    "Handler that raises",
    "200; the next message is handled, and the log has the traceback",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_messages_are_handled_after_a_handler_raised(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url) as server, alive(server):
        publish(server, "raise")
        server.wait_output("ValueError: the handler failed")
        assert status(server, "/ready") == 200
        round_trip(server, 1)


@row(
    "Handler that hangs, with `max_workers` 1",
    "200, although no more messages are handled",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_readiness_succeeds_while_a_handler_hangs(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url, SHUTDOWN_TIMEOUT=1) as server:
        with alive(server):
            publish(server, "hang")
            server.wait_output("handling hang\n")
            publish(server, 1)
            assert status(server, "/ready") == 200
        server.terminate()
        assert server.wait(20.0) == SIGTERM_CODE
        assert "handling 1\n" not in server.output()


@row(
    "Handler that hangs, with `max_handler_age` 1 s",
    "liveness is 503, so that the process is restarted",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_liveness_fails_while_a_handler_exceeds_its_age(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url, SHUTDOWN_TIMEOUT=1, MAX_HANDLER_AGE=1) as server:
        round_trip(server, 1)
        assert status(server, "/live") == 200
        fault.happened()
        publish(server, "hang")
        wait_for(server, "/live", 503)
        fault.not_ready()


@row(
    "Handler that blocks the event loop for 2 s",
    "no probe responds within a kubelet's timeout of 1 s, not even liveness; 200 when the event loop "
    "continues",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_probes_recover_after_a_handler_blocked_the_event_loop(
    broker: NatsServer, fault: Fault, app: App
) -> None:
    fault.at(app.where)
    with serving(app, broker.url) as server:
        fault.happened()
        publish(server, "block")
        assert poll(lambda: status(server, "/live") == 0, 2.0)
        fault.not_ready()
        server.wait_output("handled block\n")
        fault.repaired()
        wait_for(server, "/live", 200)
        wait_for(server, "/ready", 200)
        round_trip(server, 1)
        fault.ready()
