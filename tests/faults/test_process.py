"""The fault matrix where it hurts: in whole processes, seen from outside, with real signals."""

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

from tests.conftest import NatsFactory
from tests.faults.apps import FASTAPI, STANDALONE, App, in_each_host, standalone_first
from tests.faults.matrix import Fault, row
from tests.servers import HOST, hold_port, poll
from tests.servers.asgi import AppServer
from tests.servers.nats import NatsServer

SECRET = "a-word-nobody-may-read"
"""The password in the broker's URL, in every test here."""

WHERE = (STANDALONE.where, FASTAPI.where)
KUBELET_TIMEOUT = 1.0
SIGTERM_CODE = -15
STARTUP_FAILED = 3
MESSAGES = 200


@pytest.fixture
def broker(nats_factory: NatsFactory) -> NatsServer:
    """Return a server with JetStream that asks for the password."""
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
    """Run an application in a process of its own, and see that it never says the password."""
    env = {"NATS_URL": url, **{name: str(value) for name, value in environment.items()}}
    if command == "uvicorn":
        server = AppServer.uvicorn(app.source, env=env, ready_path=ready_path)
    else:
        words = [sys.executable, "-m", "faststream", "run", "main:app", "--host", HOST, "--port", "{port}"]
        server = AppServer(words, app=app.source, env=env, ready_path=ready_path)
    with server:
        yield server
        assert SECRET not in server.output()


def ask(
    server: AppServer,
    path: str,
    *,
    method: str = "GET",
    body: object = None,
    timeout: float = 30.0,
) -> tuple[int, str]:
    """Return the status and all else of an answer; 0 where there was none within `timeout`."""
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
    """Return what a kubelet sees, which waits for a second: a status, or 0."""
    return ask(server, path, timeout=KUBELET_TIMEOUT)[0]


def wait_for(server: AppServer, path: str, expected: int, seconds: float = 40.0) -> None:
    assert poll(lambda: status(server, path) == expected, seconds), server.error(f"{path} is not {expected}")


def details(server: AppServer, expected: int) -> dict[str, Any]:
    """Return what readiness says in detail, which must not be a secret."""
    found, said = ask(server, "/details/")
    assert found == expected
    assert SECRET not in said
    document: dict[str, Any] = json.loads(said[said.index("{") :])
    return document


def publish(server: AppServer, job: int | str) -> None:
    """Publish through the application."""
    found, said = ask(server, "/jobs", method="POST", body=job)
    assert found == 202, said


def goes_through(server: AppServer, job: int, seconds: float = 30.0) -> None:
    publish(server, job)
    server.wait_output(f"handled {job}\n", seconds)


def jobs(server: AppServer, what: str = "handled") -> list[int]:
    """Return the numbers of the messages that were handled, in the order of the output."""
    # A line without its end is still being written.
    lines = server.output().splitlines(keepends=True)
    return [int(line.split()[1]) for line in lines if line.startswith(f"{what} ") and line.endswith("\n")]


@contextlib.contextmanager
def alive(server: AppServer) -> Iterator[None]:
    """Ask for liveness all the time, from outside; it must never say anything but 204."""
    over = threading.Event()
    seen: list[int] = []

    def ask_on() -> None:
        while not over.wait(0.05):
            # With a long deadline: what a busy machine makes slow is not dead.
            seen.append(ask(server, "/live")[0])

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield
        poll(lambda: seen, 10.0)
    finally:
        over.set()
        thread.join()
    assert set(seen) == {204}


def assert_ended(server: AppServer, code: int) -> None:
    """See that the process ended in good order and left no other behind."""
    assert server.wait(20.0) == code
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)
    assert "state stopped" in server.output() or "state failed" in server.output()
    assert server.output().count("the host is down\n") == 1


# What happens to the messages when the process is told to stop.


class Stream:
    """The stream `jobs` and its consumer `workers`, as the server knows them."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def _publish(self, numbers: range) -> None:
        connection = await nats_py.connect(self.url)
        stream = connection.jetstream()
        for number in numbers:
            await stream.publish("jobs", str(number).encode())
        await connection.close()

    def publish(self, numbers: range) -> None:
        """Publish numbered messages; the server has acknowledged every one."""
        asyncio.run(self._publish(numbers))

    async def _info(self) -> Any:
        connection = await nats_py.connect(self.url)
        info = await connection.jetstream().consumer_info("jobs", "workers")
        await connection.close()
        return info

    def deliveries(self) -> int:
        """Return how often a message was delivered, redeliveries included."""
        return int(asyncio.run(self._info()).delivered.consumer_seq)

    def unacknowledged(self) -> int:
        """Return how many messages were delivered and not acknowledged."""
        return int(asyncio.run(self._info()).num_ack_pending)

    def settled(self) -> int:
        """Return up to which number of the stream all messages are acknowledged."""
        return int(asyncio.run(self._info()).ack_floor.stream_seq)


KINDS: dict[str, dict[str, Any]] = {
    # Each is slow enough that SIGTERM comes in the middle.
    "push": {"KIND": "push", "MAX_WORKERS": 1, "WORK": 0.01},
    "push, 4 workers": {"KIND": "push", "MAX_WORKERS": 4, "WORK": 0.04},
    "pull": {"KIND": "pull", "MAX_WORKERS": 1, "WORK": 0.05, "BATCH": 5},
    "pull, 4 workers": {"KIND": "pull", "MAX_WORKERS": 4, "WORK": 0.04, "BATCH": 50},
    "pull in batches": {"KIND": "batch", "WORK": 0.1, "BATCH": 20},
}
FIRST = pytest.param(STANDALONE, "push", id="standalone-push")
# The host has no hand in how messages are taken.
GRID = [(STANDALONE, kind) for kind in KINDS if kind != "push"]
GRID += [(FASTAPI, "push"), (FASTAPI, "pull, 4 workers")]
REST = [pytest.param(*each, marks=pytest.mark.full) for each in GRID]


@row(
    "SIGTERM with 200 JetStream messages in flight",
    "exit code of the server's own; handlers finish what they have begun, the next process gets the rest",
    where=WHERE,
    counts="messages finished and acknowledged exactly once",
)
@pytest.mark.parametrize(("app", "kind"), [FIRST, *REST], ids=str)
def test_every_message_is_finished_and_acknowledged_once(
    broker: NatsServer,
    fault: Fault,
    app: App,
    kind: str,
) -> None:
    fault.at(app.where)
    stream = Stream(broker.url)
    pushed = kind.startswith("push")
    # What is delivered and not handled comes again only after this time.
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
        # Nothing was begun and cut off, and exactly what was finished is acknowledged.
        assert sorted(jobs(first, "handling")) == sorted(finished)
        delivered = stream.deliveries()
        assert poll(lambda: stream.unacknowledged() == delivered - len(finished), 10.0)
        if pushed:
            assert len(finished) == MESSAGES
        with serving(app, broker.url, **options) as second:
            assert poll(lambda: stream.settled() == MESSAGES, 60.0)
            assert sorted(finished + jobs(second)) == [*range(MESSAGES)]
    # What comes again is what the first process had been given and did not begin.
    assert stream.deliveries() - MESSAGES == delivered - len(finished)
    fault.counted(MESSAGES, of=MESSAGES)


@pytest.mark.full
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("pull")])
def test_what_a_pull_subscriber_has_fetched_is_finished(broker: NatsServer, kind: str) -> None:
    stream = Stream(broker.url)
    with serving(STANDALONE, broker.url, **KINDS[kind]) as server:
        stream.publish(range(MESSAGES))
        assert poll(lambda: len(jobs(server)) >= 20, 20.0)
        server.terminate()
        server.wait(30.0)
        settled = poll(lambda: stream.unacknowledged() == 0, 5.0)
        assert (settled, "Traceback" in server.output()) == (True, False)


@row(
    "SIGTERM, and handlers that take longer than `shutdown_timeout`",
    "the process ends in time; what was cut off is not acknowledged, and delivered again",
    where=WHERE,
    counts="messages that were cut off finished by the next process",
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
def test_what_is_cut_off_is_not_acknowledged(broker: NatsServer, fault: Fault, app: App, kind: str) -> None:
    fault.at(app.where)
    stream = Stream(broker.url)
    options = {**KINDS[kind], "ACK_WAIT": 3}
    with serving(app, broker.url, **{**options, "WORK": 60, "SHUTDOWN_TIMEOUT": 1}) as first:
        stream.publish(range(10))
        first.wait_output("handling ")
        first.terminate()
        assert first.wait(10.0) == SIGTERM_CODE
        assert jobs(first) == []
    assert stream.settled() == 0
    with serving(app, broker.url, **options) as second:
        assert poll(lambda: stream.settled() == 10, 60.0)
        assert sorted(jobs(second)) == [*range(10)]
    fault.counted(10, of=10)


@row(
    "SIGKILL with 200 JetStream messages in flight",
    "the next process gets what was not acknowledged; only what was being handled may be seen twice",
    where=WHERE,
    counts="messages finished and acknowledged",
)
@pytest.mark.full
@pytest.mark.parametrize(
    ("app", "kind"),
    [(STANDALONE, "push"), (STANDALONE, "pull, 4 workers"), (FASTAPI, "push")],
    ids=str,
)
def test_killed_in_the_middle(broker: NatsServer, fault: Fault, app: App, kind: str) -> None:
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
        assert poll(lambda: stream.settled() == MESSAGES, 60.0)
        again = jobs(second)
    assert {*finished, *again} == {*range(MESSAGES)}
    # Only a handler that had said so and not yet acknowledged it.
    assert len(finished) + len(again) - MESSAGES <= KINDS[kind]["MAX_WORKERS"]
    fault.counted(MESSAGES, of=MESSAGES)


@row(
    "SIGTERM while the server is down or frozen",
    "the process ends within `shutdown_timeout`, with the server's own exit code",
    where=WHERE,
)
@pytest.mark.parametrize(
    ("app", "kind", "frozen"),
    [
        pytest.param(STANDALONE, "push", True, id="standalone-push-frozen"),
        *(
            pytest.param(*each, marks=pytest.mark.full)
            for each in (
                (STANDALONE, "pull", True),
                (STANDALONE, "push", False),
                (STANDALONE, "pull, 4 workers", False),
                (FASTAPI, "push", True),
                (FASTAPI, "pull", False),
            )
        ),
    ],
    ids=str,
)
def test_told_to_stop_while_the_broker_is_away(
    broker: NatsServer,
    fault: Fault,
    app: App,
    kind: str,
    *,
    frozen: bool,
) -> None:
    fault.at(app.where)
    with serving(app, broker.url, **{**KINDS[kind], "WORK": 0, "SHUTDOWN_TIMEOUT": 4}) as server:
        goes_through(server, 1)
        if frozen:
            broker.freeze()
        else:
            broker.kill()
        wait_for(server, "/ready", 503)
        fault.happened()
        server.terminate()
        assert_ended(server, SIGTERM_CODE)
        fault.told()
        broker.thaw()
        assert "Traceback" not in server.output()


# Told to stop while it starts.


class Early(NamedTuple):
    """Who is told to stop while it starts, how, and the exit code that follows from it."""

    app: App
    command: str
    signal: signal.Signals
    code: int

    def send(self, server: AppServer) -> None:
        """Send the signal."""
        server.process.send_signal(self.signal)


early = pytest.mark.parametrize(
    "case",
    [
        pytest.param(Early(STANDALONE, "uvicorn", signal.SIGTERM, -15), id="standalone-uvicorn-SIGTERM"),
        *(
            pytest.param(case, id=f"{case.app}-{case.command}-{case.signal.name}", marks=pytest.mark.full)
            for case in (
                Early(STANDALONE, "uvicorn", signal.SIGINT, 0),
                Early(STANDALONE, "faststream run", signal.SIGTERM, -15),
                Early(STANDALONE, "faststream run", signal.SIGINT, 130),
                Early(FASTAPI, "uvicorn", signal.SIGTERM, -15),
                Early(FASTAPI, "uvicorn", signal.SIGINT, 0),
            )
        ),
    ],
)


patient_uvicorn = pytest.mark.skipif(
    Version(uvicorn.__version__) < Version("0.50"),
    reason="Older releases of uvicorn, told to stop while they start, do not end what they have started.",
)


@pytest.fixture
def nobody() -> Iterator[str]:
    """Return the URL of a broker that refuses connections."""
    port, held = hold_port()
    with held or contextlib.nullcontext():
        yield f"nats://user:{SECRET}@{HOST}:{port}"


@row(
    "SIGTERM or Ctrl-C while a strict start waits for a broker that is down",
    "uvicorn acts when the start is over: after `startup_timeout` the start fails, exit code 3",
    where=WHERE,
)
@patient_uvicorn
@early
def test_a_signal_while_a_strict_start_waits(
    nobody: str,
    fault: Fault,
    case: Early,
) -> None:
    fault.at(case.app.where)
    with serving(case.app, nobody, command=case.command, ready_path=None, STARTUP_TIMEOUT=2) as server:
        server.wait_output("is not up yet; waiting for it, for 2 s at most.", 20.0)
        fault.happened()
        case.send(server)
        assert_ended(server, STARTUP_FAILED)
        fault.told()
        # The signal has changed nothing: the start went on to its own end.
        assert "could not be started within 2 s: the connection was refused." in server.output()
        # Starlette shows a failed start with its traceback, and that of ours in it.
        assert case.app is not STANDALONE or "Traceback" not in server.output()


@row(
    "SIGTERM or Ctrl-C while a start in the background waits for a broker that is down",
    "it ends at once, with the server's own exit code",
    where=WHERE,
)
@early
def test_a_signal_while_a_start_in_the_background_waits(
    nobody: str,
    fault: Fault,
    case: Early,
) -> None:
    fault.at(case.app.where)
    with serving(case.app, nobody, command=case.command, STARTUP="background") as server:
        assert status(server, "/ready") == 503
        assert details(server, 503)["code"] == "not_started"
        case.send(server)
        assert_ended(server, case.code)
        assert "state running" not in server.output()
        assert "Traceback" not in server.output()


@row(
    "SIGTERM or Ctrl-C while a hook or the host's own lifespan is slow to start",
    "uvicorn acts when the start is over: the brokers start, and stop again; the server's own exit code",
    where=WHERE,
)
@pytest.mark.parametrize("slow", [pytest.param("HOOK", marks=pytest.mark.full), "HOST"])
@patient_uvicorn
@early
def test_a_signal_while_something_else_starts(
    broker: NatsServer,
    fault: Fault,
    case: Early,
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
    "503 while it still listens; what was delivered is finished and acknowledged; exit code -15",
    where=STANDALONE.where,
    counts="messages finished and acknowledged exactly once",
)
def test_the_command_line_drains(broker: NatsServer, fault: Fault) -> None:
    stream = Stream(broker.url)
    options: dict[str, Any] = {"KIND": "push", "WORK": 0.1, "DRAIN_DELAY": 1.5}
    with serving(STANDALONE, broker.url, command="faststream run", **options) as server:
        assert status(server, "/ready") == 204
        stream.publish(range(30))
        assert poll(lambda: stream.deliveries() == 30, 20.0)
        fault.happened()
        server.terminate()
        wait_for(server, "/ready", 503)
        fault.told()
        assert status(server, "/live") == 204
        assert details(server, 503)["code"] == "draining"
        assert server.wait(20.0) == SIGTERM_CODE
        assert jobs(server) == [*range(30)]
    assert stream.settled() == stream.deliveries() == 30
    fault.counted(30, of=30)


# The broker comes and goes.


@row(
    "Server killed and restarted",
    "503 until it is back, and what is published meanwhile is kept until then; liveness stays 204",
    where=WHERE,
    counts="messages handled",
)
@pytest.mark.parametrize(
    "kind", ["core", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("push", "pull"))]
)
@standalone_first
def test_killed_and_restarted(broker: NatsServer, fault: Fault, app: App, kind: str) -> None:
    fault.at(app.where)
    with serving(app, broker.url, KIND=kind, BATCH=5) as server, alive(server):
        goes_through(server, 1)
        fault.happened()
        broker.kill()
        wait_for(server, "/ready", 503)
        fault.told()
        assert details(server, 503)["code"] == "refused"
        publish(server, 2)
        fault.repaired()
        broker.restart()
        wait_for(server, "/ready", 204)
        goes_through(server, 3)
        fault.back()
        assert poll(lambda: set(jobs(server)) == {1, 2, 3}, 10.0)
    fault.counted(3, of=3)


@row(
    "Server frozen and thawed",
    "503 within `probe_timeout`, 204 when it goes on; liveness stays 204",
    where=WHERE,
)
@standalone_first
def test_frozen_and_thawed(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url, KIND="push") as server, alive(server):
        goes_through(server, 1)
        fault.happened()
        broker.freeze()
        wait_for(server, "/ready", 503)
        fault.told()
        assert details(server, 503)["code"] == "timeout"
        fault.repaired()
        broker.thaw()
        wait_for(server, "/ready", 204)
        goes_through(server, 2)
        fault.back()


@row(
    "Server flapping, a second up and a second down, for 10 s",
    "503 while it is down; liveness stays 204",
    where=WHERE,
    counts="messages handled that the server had acknowledged",
)
@pytest.mark.full
@in_each_host
def test_flapping(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    stream = Stream(broker.url)
    second = threading.Event()
    with serving(app, broker.url, KIND="push", ACK_WAIT=2) as server, alive(server):
        goes_through(server, 1000)
        for number in range(5):
            broker.kill()
            # The time is the fault here.
            second.wait(1.0)
            fault.repaired()
            broker.restart()
            stream.publish(range(number, number + 1))
            second.wait(1.0)
        wait_for(server, "/ready", 204)
        goes_through(server, 1001)
        fault.back()
        # What was delivered into a connection that broke comes again.
        assert poll(lambda: {*range(5)} <= set(jobs(server)), 20.0)
    fault.counted(5, of=5)


@row(
    'Server down at the start, up late (`startup="background"`)',
    "it serves at once, 503 until the server is up; liveness stays 204",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_up_late(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    broker.stop()
    fault.happened()
    with serving(app, broker.url, KIND="push", STARTUP="background") as server, alive(server):
        assert status(server, "/ready") == status(server, "/startup") == 503
        fault.told()
        fault.repaired()
        broker.start()
        wait_for(server, "/ready", 204)
        goes_through(server, 1)
        fault.back()
        assert status(server, "/startup") == 204


@row(
    'Wrong password at the start, put right later (`startup="background"`)',
    "it serves at once, 503 until the login works; liveness stays 204",
    where=WHERE,
)
@standalone_first
def test_wrong_password_put_right(nats_factory: NatsFactory, fault: Fault, app: App) -> None:
    fault.at(app.where)
    broker = nats_factory(user="user", password="another one")
    url = f"nats://user:{SECRET}@{HOST}:{broker.port}"
    fault.happened()
    with serving(app, url, STARTUP="background") as server, alive(server):
        assert details(server, 503)["code"] == "not_started"
        fault.told()
        server.wait_output("is not up: the credentials were rejected. Next try in", 20.0)
        fault.repaired()
        broker.password = SECRET
        broker.restart()
        wait_for(server, "/ready", 204)
        goes_through(server, 1)
        fault.back()


@row(
    "Wrong password at a strict start",
    "exit code 3, and one line that says why, without the password",
    where=WHERE,
)
@standalone_first
def test_wrong_password_at_a_strict_start(nats_factory: NatsFactory, fault: Fault, app: App) -> None:
    fault.at(app.where)
    broker = nats_factory(user="user", password="another one")
    url = f"nats://user:{SECRET}@{HOST}:{broker.port}"
    fault.happened()
    with serving(app, url, ready_path=None, STARTUP_TIMEOUT=2) as server:
        assert server.wait(20.0) == STARTUP_FAILED
        fault.told()
        told = f"NatsBroker {broker.safe_url} could not be started"
        lines = [line for line in server.output().splitlines() if told in line]
        assert len(lines) == 1
        assert "the credentials were rejected." in lines[0]


@row(
    "Password changed while it runs, put right later",
    "503 until the login works again; liveness stays 204",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_password_changed_while_it_runs(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url, KIND="pull") as server, alive(server):
        goes_through(server, 1)
        fault.happened()
        broker.password = "another one"
        broker.restart()
        wait_for(server, "/ready", 503)
        fault.told()
        assert poll(lambda: details(server, 503)["code"] == "auth", 30.0)
        fault.repaired()
        broker.password = SECRET
        broker.restart()
        wait_for(server, "/ready", 204)
        goes_through(server, 2)
        fault.back()


@row(
    "One of two brokers down",
    "503, while the other one goes on working; liveness stays 204",
    where=WHERE,
)
@standalone_first
def test_one_of_two_down(
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
        fault.told()
        states = [each["status"] for each in details(server, 503)["checks"]["NatsBroker"]]
        assert sorted(states) == ["fail", "pass", "pass"]
        goes_through(server, 1)
        fault.repaired()
        other.restart()
        wait_for(server, "/ready", 204)
        goes_through(server, 2)
        fault.back()


@row(
    "One of two brokers down, an `optional` one",
    "204 all the time; the details say `warn`",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_an_optional_one_of_two_down(
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
        fault.told()
        assert status(server, "/ready") == 204
        goes_through(server, 1)
        fault.repaired()
        other.start()
        assert poll(lambda: details(server, 200)["status"] == "pass", 30.0)
        goes_through(server, 2)
        fault.back()


# The handler misbehaves.


@row(
    "Handler that raises",
    "204: the next message is handled; the log has the traceback",
    where=WHERE,
)
@standalone_first
def test_a_handler_that_raises(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url) as server, alive(server):
        publish(server, "raise")
        server.wait_output("ValueError: a handler of the user's failed")
        assert status(server, "/ready") == 204
        goes_through(server, 1)


@row(
    "Handler that hangs, with `max_workers` 1",
    "204, though no message is handled any more",
    where=WHERE,
)
@standalone_first
def test_a_handler_that_hangs(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url, SHUTDOWN_TIMEOUT=1) as server:
        with alive(server):
            publish(server, "hang")
            server.wait_output("handling hang\n")
            publish(server, 1)
            assert status(server, "/ready") == 204
        server.terminate()
        assert server.wait(20.0) == SIGTERM_CODE
        assert "handling 1\n" not in server.output()


@row(
    "Handler that hangs, with `max_handler_age` 1 s",
    "liveness says 503, so that the process is restarted",
    where=WHERE,
)
@pytest.mark.full
@in_each_host
def test_a_handler_that_hangs_is_seen(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url, SHUTDOWN_TIMEOUT=1, MAX_HANDLER_AGE=1) as server:
        goes_through(server, 1)
        assert status(server, "/live") == 204
        fault.happened()
        publish(server, "hang")
        wait_for(server, "/live", 503)
        fault.told()


@row(
    "Handler that blocks the event loop for 2 s",
    "a kubelet that waits for 1 s gets no answer, from liveness neither; 204 when the loop goes on",
    where=WHERE,
)
@standalone_first
def test_a_handler_that_blocks_the_loop(broker: NatsServer, fault: Fault, app: App) -> None:
    fault.at(app.where)
    with serving(app, broker.url) as server:
        fault.happened()
        publish(server, "block")
        assert poll(lambda: status(server, "/live") == 0, 2.0)
        fault.told()
        server.wait_output("handled block\n")
        fault.repaired()
        wait_for(server, "/live", 204)
        wait_for(server, "/ready", 204)
        goes_through(server, 1)
        fault.back()
