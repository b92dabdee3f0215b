"""`python -m faststream_adapters.probe`: request a probe, for containers that have no curl.

It imports little, because a container starts it every few seconds.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from threading import Thread
from typing import NamedTuple, TextIO
from urllib.parse import urlsplit

_TIMEOUT = 2.0
"""Seconds. The probes of this package respond within 0.9 s unless told otherwise."""

_LONGEST_TIMEOUT = 3600.0
"""Seconds. Timers cannot be set for arbitrarily large numbers."""

_LONGEST = 4096
"""Bytes of a response that are read; Docker keeps no more of what a check prints."""

_EXAMPLES = "http://127.0.0.1:8000/readyz or unix:/run/app.sock:/readyz"


class _Address(NamedTuple):
    """What a URL stands for.

    Args:
        server: The host and port, or the path of a Unix socket.
        host: The value of the `Host` header.
        path: The path, and the query if there is one.
    """

    server: tuple[str, int] | str
    host: str
    path: str


def _parse(url: str) -> _Address:
    """Return the address of a URL.

    Raises:
        ArgumentTypeError: It is none. The error does not contain it, because it may contain a secret.
    """
    if url.isascii() and url.isprintable() and " " not in url:
        scheme, _, rest = url.partition(":")
        if scheme == "unix":
            server, separator, path = rest.partition(":/")
            if server and separator:
                return _Address(server, "localhost", f"/{path}")
        elif scheme == "http":
            try:
                parts = urlsplit(url)
                port = 80 if parts.port is None else parts.port
                (parts.hostname or "").encode("idna")
            except ValueError:
                pass
            else:
                if parts.hostname and "@" not in parts.netloc:
                    query = f"?{parts.query}" if parts.query else ""
                    return _Address((parts.hostname, port), parts.netloc, f"{parts.path or '/'}{query}")
    msg = f"it must look like {_EXAMPLES}, without a user, a password and spaces"
    raise argparse.ArgumentTypeError(msg)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds <= _LONGEST_TIMEOUT:
        return seconds
    msg = f"it must be a number of seconds above 0, up to {_LONGEST_TIMEOUT:g}"
    raise argparse.ArgumentTypeError(msg)


def _connect(server: tuple[str, int] | str) -> socket.socket:
    if not isinstance(server, str):
        return socket.create_connection(server)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(server)
    except BaseException:
        connection.close()
        raise
    return connection


def _request(address: _Address) -> tuple[bool, str]:
    """Return whether the status of the response is one of success, and what to print.

    Raises:
        OSError: There is no connection.
    """
    with _connect(address.server) as connection:
        # In HTTP/1.0 the end of the connection is the end of the body, which comes in one piece.
        connection.sendall(
            f"GET {address.path} HTTP/1.0\r\nHost: {address.host}\r\n"
            "User-Agent: faststream-adapters-probe\r\nConnection: close\r\n\r\n".encode()
        )
        response = b""
        while len(response) < _LONGEST and (received := connection.recv(_LONGEST)):
            response += received
    head, _, body = response.partition(b"\r\n\r\n")
    protocol, _, status = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    code = status[:3]
    if not (protocol.startswith("HTTP/") and len(code) == len("200") and code.isdecimal()):
        return False, "The server does not speak HTTP."
    word = _printable(body)
    if code.startswith("2"):
        return True, word or "ok"
    return False, f"{code} {word}".rstrip()


def _printable(body: bytes) -> str:
    """Return a body in one line, in characters that every terminal has and interprets in no way."""
    text = " ".join(body.decode("ascii", errors="replace").split())
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Request a probe, print its response, and return the exit code.

    Args:
        arguments: The arguments; None: those of the process.

    Returns:
        0 if the status of the response was one of success, else 1. Wrong arguments exit with 2.
    """
    parser = argparse.ArgumentParser(
        "python -m faststream_adapters.probe",
        description="Request a probe over HTTP. The exit code is 0 if it responds with a status from 200 to "
        "299, 1 if not, and 2 if the arguments are wrong.",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=_TIMEOUT,
        metavar="S",
        help=f"seconds after which it gives up ({_TIMEOUT:g})",
    )
    parser.add_argument("address", type=_parse, metavar="URL", help=_EXAMPLES)
    options = parser.parse_args(arguments)
    address: _Address = options.address
    results: list[tuple[bool, str]] = []

    def request() -> None:
        try:
            results.append(_request(address))
        except OSError as error:
            results.append((False, error.strerror or str(error)))

    # A thread, because nothing else limits how long the resolution of a host name takes.
    thread = Thread(target=request, daemon=True)
    thread.start()
    thread.join(options.timeout)
    success, text = next(iter(results), (False, f"No response within {options.timeout:g} s."))
    _print(text, sys.stdout if success else sys.stderr)
    return 0 if success else 1


def _print(text: str, stream: TextIO | None) -> None:
    """Print a line if that is possible: a full disk or a closed stream says nothing about the probe."""
    if stream is None:
        # The process was started without it.
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        # Otherwise Python would try again at its end, and exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
