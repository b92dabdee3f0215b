"""Send requests at fixed times, so that work that keeps the server busy shows as late responses.

As a script, in a process whose event loop has nothing else to do, it prints the latencies in milliseconds.
Arguments: the server's port, the path, the seconds between two requests, and the duration in seconds.
"""

import asyncio
import math
import sys

from tests.harness.servers import HOST


class Connection:
    """A persistent HTTP connection.

    Args:
        port: The port to connect to.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> bytes:
        """Send a GET request, and return the body of the response."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self.port)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        _, separator, rest = head.lower().partition(b"content-length: ")
        return await reader.readexactly(int(rest.split(b"\r\n")[0])) if separator else b""

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()


async def paced(port: int, path: str, interval: float, delay: float, duration: float) -> list[float]:
    """Send requests at fixed times over one connection.

    A request that would be due while the previous one has no response yet is sent after that response.

    Args:
        port: The server's port.
        path: The path to request.
        interval: The seconds between two requests.
        delay: The seconds until the first request.
        duration: The seconds after which no more requests are sent.

    Returns:
        For each request the milliseconds from the time when it was due until its response.
    """
    loop = asyncio.get_running_loop()
    connection = Connection(port)
    due, end = loop.time() + delay, loop.time() + duration
    latencies: list[float] = []
    try:
        while due < end:
            await asyncio.sleep(due - loop.time())
            await connection.get(path)
            latencies.append((loop.time() - due) * 1e3)
            due = max(due + interval, loop.time())
    finally:
        connection.close()
    return latencies


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[math.ceil(len(values) * share) - 1]


if __name__ == "__main__":
    port, path, interval, duration = sys.argv[1:]
    print(*asyncio.run(paced(int(port), path, float(interval), 0.0, float(duration))))
