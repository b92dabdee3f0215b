"""A proxy that requires a login in front of a server with Kafka's protocol."""

from __future__ import annotations

import asyncio
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from tests.harness.servers import HOST
from tests.harness.servers.kafka import KafkaServer

if TYPE_CHECKING:
    from types import TracebackType

_API_VERSIONS, _SASL_HANDSHAKE, _SASL_AUTHENTICATE = 18, 17, 36
_SASL_AUTHENTICATION_FAILED = 58


class KafkaLogin:
    """A proxy in front of a `KafkaServer`, which requires a login with a password that can be changed.

    No login succeeds with tansu 0.6: with `--authentication` it wants one for the creation of a user too, and
    without, it refuses SASL. The proxy implements SASL's mechanism PLAIN, and passes on what follows a login.

    Args:
        password: The password of each user.
    """

    def __init__(self, password: str) -> None:
        self.password = password
        self._stack = ExitStack()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        port: int = self._proxy.sockets[0].getsockname()[1]
        return f"{HOST}:{port}"

    async def __aenter__(self) -> Self:
        self._proxy = await asyncio.start_server(self._connected, HOST)
        self._server = self._stack.enter_context(KafkaServer(advertised=self.url))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._proxy.close()
        await self.close_connections()
        await self._proxy.wait_closed()
        self._stack.close()

    async def change_password(self, password: str) -> None:
        """Change the password, and close the connections that were made with the former one."""
        self.password = password
        await self.close_connections()

    async def close_connections(self) -> None:
        """Close the connections to the clients."""
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        from_server, to_server = await asyncio.open_connection(HOST, self._server.port)
        responses = asyncio.create_task(_copy(from_server, writer))
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._serve(reader, writer, to_server)
        finally:
            del self._connections[task]
            responses.cancel()
            writer.close()
            to_server.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_server: asyncio.StreamWriter
    ) -> None:
        while True:
            size = await reader.readexactly(4)
            request = await reader.readexactly(*struct.unpack(">i", size))
            key, version, correlation, client_id_size = struct.unpack_from(">hhih", request)
            if key == _API_VERSIONS:
                to_server.write(size + request)
                continue
            response = struct.pack(">i", correlation)
            rejected = False
            if key == _SASL_HANDSHAKE:
                response += struct.pack(">hih", 0, 1, len("PLAIN")) + b"PLAIN"
            elif key == _SASL_AUTHENTICATE:
                *_, password = request[10 + client_id_size + 4 :].decode().split("\0")
                rejected = password != self.password
                response += struct.pack(">hhi", _SASL_AUTHENTICATION_FAILED if rejected else 0, -1, 0)
                # The length of the session, which is not limited.
                response += struct.pack(">q", 0) if version else b""
            else:
                return
            writer.write(struct.pack(">i", len(response)) + response)
            await writer.drain()
            if rejected:
                return
            if key == _SASL_AUTHENTICATE:
                await _copy(reader, to_server)
                return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
