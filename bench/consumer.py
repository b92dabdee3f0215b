"""A consumer in a process of its own.

Arguments: how it runs (`plain`, `upstream`, `standalone`, `fastapi`, `quart`), NATS's address, the number of
messages, and the port to serve on. It prints `ready` when it consumes, and in the end the CPU time that it
took and when the first and the last message came.
"""

import asyncio
import logging
import sys
import time
from typing import Any

import uvicorn
import uvloop
from faststream import FastStream
from faststream.nats import NatsBroker

HOST = "127.0.0.1"


class Count:
    """The handler, which counts, and stops the clock at the last message."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.left = messages
        self.done = asyncio.Event()
        self.cpu = self.first = self.last = 0.0

    async def handle(self, number: int) -> None:  # noqa: ARG002 (it is what is consumed)
        """Handle a message."""
        if self.left == self.messages:
            self.cpu, self.first = time.process_time(), time.perf_counter()
        self.left -= 1
        if not self.left:
            self.cpu, self.last = time.process_time() - self.cpu, time.perf_counter()
            self.done.set()


def _app(how: str, broker: NatsBroker) -> Any:
    if how == "upstream":
        from faststream.asgi import AsgiFastStream as UpstreamApp

        return UpstreamApp(broker, logger=None, asgi_routes=[("/livez", _answer)])
    from faststream_adapters import AsgiFastStream

    if how == "standalone":
        return AsgiFastStream(broker, logger=None, liveness_path="/livez")
    if how == "quart":
        from quart import Quart

        from faststream_adapters.quart import QuartFastStream

        site = Quart("bench")
        QuartFastStream(broker, app=site, liveness_path="/livez")
        return site
    from fastapi import FastAPI

    from faststream_adapters.fastapi import FastStreamRouter

    app = FastAPI()
    app.include_router(FastStreamRouter(broker, liveness_path="/livez"))
    return app


async def _answer(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 (the ASGI signature)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def main(how: str, url: str, messages: int, port: int) -> None:
    """Consume so many messages."""
    logging.disable(logging.CRITICAL)
    broker = NatsBroker(url, logger=None)
    count = Count(messages)
    broker.subscriber(how)(count.handle)

    if how == "plain":
        app = FastStream(broker, logger=None)
        task = asyncio.create_task(app.run())
        stop = app.exit
    else:
        config = uvicorn.Config(
            _app(how, broker), HOST, port, loop="uvloop", http="httptools", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())

        def stop() -> None:
            server.should_exit = True

    while not (broker.running or task.done()):  # noqa: ASYNC110 (nobody else tells)
        await asyncio.sleep(0.01)
    # The server knows of the subscriber.
    await broker.connection.flush()
    print("ready", flush=True)
    await asyncio.wait((asyncio.create_task(count.done.wait()), task), return_when=asyncio.FIRST_COMPLETED)
    stop()
    await task
    print(count.cpu, count.first, count.last)


if __name__ == "__main__":
    name, address, number, listen = sys.argv[1:]
    # The same event loop for all.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(name, address, int(number), int(listen)))
