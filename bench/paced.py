"""Requests at fixed times, each late by what the server is busy with.

As a process of its own, whose event loop nothing else keeps busy, this prints the times of the requests in
milliseconds. Arguments: the server's port, the path, the seconds between two requests, and for how many
seconds.
"""

import asyncio
import math
import sys

from tests.servers import HOST


class Connection:
    """An HTTP connection that stays open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> bytes:
        """Return the body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self.port)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        _, found, rest = head.lower().partition(b"content-length: ")
        return await reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()


async def paced(port: int, path: str, every: float, first: float, seconds: float) -> list[float]:
    """Ask again and again at fixed times; return the milliseconds from when each was due until its answer."""
    loop = asyncio.get_running_loop()
    connection = Connection(port)
    due, end = loop.time() + first, loop.time() + seconds
    times: list[float] = []
    try:
        while due < end:
            await asyncio.sleep(due - loop.time())
            await connection.get(path)
            times.append((loop.time() - due) * 1e3)
            due = max(due + every, loop.time())
    finally:
        connection.close()
    return times


def percentile(times: list[float], share: float) -> float:
    """Return the time that so large a share of the times does not exceed."""
    return sorted(times)[math.ceil(len(times) * share) - 1]


if __name__ == "__main__":
    listens, what, pause, duration = sys.argv[1:]
    print(*asyncio.run(paced(int(listens), what, float(pause), 0.0, float(duration))))
