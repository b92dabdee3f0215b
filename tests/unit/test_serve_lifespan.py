"""serve_lifespan: what a server is told, whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from faststream.asgi.types import Message
from faststream.exceptions import SetupError, StartupValidationError

from faststream_adapters.lifespan import BrokerStartError, serve_lifespan


class Server:
    """The server's side of the lifespan protocol."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.to_app: asyncio.Queue[Message] = asyncio.Queue()
        for stage in ("startup", "shutdown"):
            self.to_app.put_nowait({"type": f"lifespan.{stage}"})

    async def run(self, *, up: BaseException | None = None, down: BaseException | None = None) -> object:
        @asynccontextmanager
        async def context() -> AsyncIterator[None]:
            if up is not None:
                raise up
            yield
            if down is not None:
                raise down

        return await serve_lifespan(context(), self.to_app.get, self.send)

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def test_a_good_run_is_complete() -> None:
    server = Server()
    assert await server.run() is None
    assert [message["type"] for message in server.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


@pytest.mark.parametrize("error", [BrokerStartError("NatsBroker is down."), SetupError("Say so.")])
async def test_an_error_that_is_written_for_operators_is_told(error: Exception) -> None:
    server = Server()
    assert await server.run(up=error) is error
    assert server.sent == [{"type": "lifespan.startup.failed", "message": str(error)}]


async def test_missing_options_are_told() -> None:
    server = Server()
    await server.run(up=StartupValidationError(missed_fields=["env"]))
    assert "--env" in server.sent[0]["message"]


async def test_any_other_error_goes_to_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    error = KeyError("nats://user:secret@host")
    assert await server.run(up=error) is error
    assert server.sent == [
        {
            "type": "lifespan.startup.failed",
            "message": "The startup failed with KeyError; the log has the traceback.",
        },
    ]
    assert "Traceback" in caplog.text
    assert "nats://***@host" in caplog.text
    assert "secret" not in caplog.text


async def test_one_error_in_task_groups_is_what_it_is() -> None:
    server = Server()
    inner = BrokerStartError("NatsBroker is down.")
    await server.run(up=ExceptionGroup("outer", [ExceptionGroup("inner", [inner])]))
    assert server.sent[0]["message"] == "NatsBroker is down."


async def test_an_error_while_stopping_is_told() -> None:
    server = Server()
    await server.run(down=KeyError())
    assert [message["type"] for message in server.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.failed",
    ]


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
async def test_not_even_an_exit_makes_the_server_serve(error: BaseException) -> None:
    server = Server()
    with pytest.raises(type(error)):
        await server.run(up=error)
    assert server.sent[0]["type"] == "lifespan.startup.failed"


async def test_a_server_that_cancels_is_told_nothing() -> None:
    server = Server()
    server.to_app = asyncio.Queue()
    running = asyncio.create_task(server.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    server.to_app.put_nowait({"type": "lifespan.startup"})
    running = asyncio.create_task(server.run())
    while not server.sent:  # noqa: ASYNC110 (it takes two steps of the event loop)
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [message["type"] for message in server.sent] == ["lifespan.startup.complete"]
