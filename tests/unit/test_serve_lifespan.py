"""serve_lifespan: the messages that it sends to the server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from faststream.asgi.types import Message
from faststream.exceptions import SetupError, StartupValidationError

from faststream_adapters._asgi.lifespan_protocol import serve_lifespan
from faststream_adapters._utils.errors import BrokerStartError


class Server:
    """The server's side of the lifespan protocol."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.to_app: asyncio.Queue[Message] = asyncio.Queue()
        for stage in ("startup", "shutdown"):
            self.to_app.put_nowait({"type": f"lifespan.{stage}"})

    async def run(
        self, *, startup: BaseException | None = None, shutdown: BaseException | None = None
    ) -> Exception | None:
        """Serve a lifespan that raises these errors, and return the error of the application."""

        @asynccontextmanager
        async def context() -> AsyncIterator[None]:
            if startup is not None:
                raise startup
            yield
            if shutdown is not None:
                raise shutdown

        try:
            await serve_lifespan(context(), self.to_app.get, self.send)
        except Exception as raised:  # noqa: BLE001 (the tests look at it)
            return raised
        return None

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def test_a_successful_lifespan_is_reported_as_complete() -> None:
    server = Server()
    assert await server.run() is None
    assert [message["type"] for message in server.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


@pytest.mark.parametrize("error", [BrokerStartError("NatsBroker is down."), SetupError("Set the URL.")])
async def test_an_error_for_operators_is_sent(error: Exception) -> None:
    server = Server()
    assert await server.run(startup=error) is error
    assert server.sent == [{"type": "lifespan.startup.failed", "message": str(error)}]


async def test_missing_options_are_sent() -> None:
    server = Server()
    await server.run(startup=StartupValidationError(missed_fields=["env"]))
    assert "--env" in server.sent[0]["message"]


async def test_other_errors_are_logged_and_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    error = KeyError("nats://user:secret@host")
    raised = await server.run(startup=error)
    assert isinstance(raised, KeyError)
    assert str(raised) == "'nats://***@host'"
    assert server.sent == [
        {
            "type": "lifespan.startup.failed",
            "message": "The startup failed with KeyError; see the log for the traceback.",
        },
    ]
    assert "Traceback" in caplog.text
    assert "nats://***@host" in caplog.text
    assert "secret" not in caplog.text


async def test_a_single_error_in_exception_groups_is_unwrapped() -> None:
    server = Server()
    inner = BrokerStartError("NatsBroker is down.")
    await server.run(startup=ExceptionGroup("outer", [ExceptionGroup("inner", [inner])]))
    assert server.sent[0]["message"] == "NatsBroker is down."


async def test_an_error_during_the_shutdown_is_sent() -> None:
    server = Server()
    await server.run(shutdown=KeyError())
    assert [message["type"] for message in server.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.failed",
    ]


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
async def test_an_exit_or_a_cancellation_fails_the_startup(error: BaseException) -> None:
    server = Server()
    with pytest.raises(type(error)):
        await server.run(startup=error)
    assert server.sent[0]["type"] == "lifespan.startup.failed"


async def test_no_failure_is_sent_if_the_server_cancels_the_app() -> None:
    server = Server()
    server.to_app = asyncio.Queue()
    running = asyncio.create_task(server.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    server.to_app.put_nowait({"type": "lifespan.startup"})
    running = asyncio.create_task(server.run())
    while not server.sent:  # noqa: ASYNC110 (it takes two iterations of the event loop)
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete"]


async def test_an_error_without_credentials_is_raised_unchanged() -> None:
    error, cause = ValueError("no database"), KeyError("dsn")
    error.__cause__ = cause
    assert await Server().run(startup=error) is error
    assert error.__cause__ is cause


async def test_the_error_of_send_is_raised_without_that_of_the_application() -> None:
    class Refuses(Server):
        async def send(self, message: Message) -> None:
            raise LookupError(message["type"])

    # hypercorn raises from `send`, and prints the error with its context.
    error = await Refuses().run(startup=ValueError("no database"))
    assert type(error) is LookupError
    assert error.__context__ is None


async def test_the_server_can_act_on_the_failure_before_the_error_is_raised() -> None:
    read = asyncio.Event()

    async def act() -> bool:
        await read.wait()
        # granian needs two more iterations of the event loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return running.done()

    class Reads(Server):
        async def send(self, message: Message) -> None:
            await super().send(message)
            read.set()

    server = Reads()
    acting = asyncio.create_task(act())
    running = asyncio.create_task(server.run(startup=ValueError("no database")))
    assert not await acting
    assert isinstance(await running, ValueError)
