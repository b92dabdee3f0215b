"""Where a server listens: TCP addresses, unix sockets, and sockets that the parent process has opened."""

import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from faststream.exceptions import SetupError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

_FORMS = "host:port, [::1]:port, unix:/dir/name.sock or fd://N"
_AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""One of the addresses of a name, as `socket.getaddrinfo` returns them."""

_UNIX_MODE = 0o666
"""Who may talk to an HTTP server on a unix socket is said by its directory, as it is under uvicorn."""


def binds(options: Mapping[str, Any]) -> list[str]:
    """Return where to listen.

    Args:
        options: `bind`, one or several; or `host` and `port`; or `uds`; or `fd`.

    Raises:
        SetupError: More than one of these is given.
    """
    ways = [
        " and ".join(f"--{name}" for name in way if options.get(name) is not None)
        for way in (("bind",), ("host", "port"), ("uds",), ("fd",))
        if any(options.get(name) is not None for name in way)
    ]
    if len(ways) > 1:
        msg = f"{', '.join(ways)} all say where to listen: give one of them."
        raise SetupError(msg)
    if (given := options.get("bind")) is not None:
        return [str(bind) for bind in given] if isinstance(given, list | tuple) else [str(given)]
    if (path := options.get("uds")) is not None:
        return [f"unix:{path}"]
    if (number := options.get("fd")) is not None:
        return [f"fd://{number}"]
    host, port = options.get("host"), options.get("port")
    host = DEFAULT_HOST if host is None else str(host)
    port = DEFAULT_PORT if port is None else port
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]


@contextmanager
def listening(addresses: Sequence[str], *, shared: bool = False) -> Iterator[list[socket.socket]]:
    """Open sockets to listen on, and close them in the end; a unix socket's file is removed then.

    Args:
        addresses: Each `host:port`, `[::1]:port`, `unix:/dir/name.sock` or `fd://N`; without a host, all
            interfaces are meant.
        shared: Whether other processes, which were spawned, listen there too.

    Raises:
        SetupError: An address is not one of these, cannot be shared, or cannot be listened on.
    """
    with ExitStack() as stack:
        yield [listener for address in addresses for listener in _open(stack, address, shared=shared)]


def url_of(listener: socket.socket, scheme: str) -> str:
    """Return what to type to reach a server that listens there.

    Args:
        listener: The socket.
        scheme: `http` or `https`.
    """
    if listener.family not in {socket.AF_INET, socket.AF_INET6}:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _open(stack: ExitStack, address: str, *, shared: bool) -> list[socket.socket]:
    kind, _, rest = address.partition(":")
    try:
        if kind == "unix":
            if not rest:
                raise _not_an_address(address)
            _refuse_sharing(address, f"--uds {rest}", shared=shared)
            return [_unix(stack, Path(rest))]
        if kind == "fd":
            _refuse_sharing(address, f"--fd {rest.lstrip('/')}", shared=shared)
            return [_inherited(stack, address, rest.lstrip("/"))]
        host, port = _host_and_port(address)
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _tcp(stack, infos, shared=shared)
    except (OSError, UnicodeError) as error:
        # Python's own errors, such as that of a path that is too long, have no strerror.
        msg = f"Cannot listen on {address}: {getattr(error, 'strerror', None) or error}."
        raise SetupError(msg) from error


def _refuse_sharing(address: str, option: str, *, shared: bool) -> None:
    if shared:
        msg = (
            f"The workers that `faststream run` spawns cannot share {address}: "
            f"run `uvicorn main:app {option} --workers N` instead, or leave out --workers."
        )
        raise SetupError(msg)


def _host_and_port(address: str) -> tuple[str | None, int]:
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    # An IPv6 address needs brackets, or nobody could tell where the port begins.
    if not (colon and port.isdecimal() and int(port) < 2**16 and (bracketed or ":" not in host)):
        raise _not_an_address(address)
    return host.removeprefix("[").removesuffix("]") or None, int(port)


def _tcp(stack: ExitStack, infos: Sequence[_AddressInfo], *, shared: bool) -> list[socket.socket]:
    """Listen on the addresses of one name."""
    opened: list[socket.socket] = []
    missing: OSError | None = None
    for family, *_, target in infos:
        port = target[1]
        if shared and not port:
            msg = "Each worker would get a port of its own from port 0: give all of them one port."
            raise SetupError(msg)
        # A name has several addresses, and with port 0 each of them would get a port of its own.
        if opened and not port:
            break
        try:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Else it takes the IPv4 address of the same port too, for which there may be a socket.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(target)
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
            # `localhost` has an IPv6 address on machines without IPv6 too.
            missing = error
        else:
            opened.append(listener)
    if missing is not None and not opened:
        raise missing
    return opened


class _UnixListener(socket.socket):
    """Removes its file when it is closed: uvicorn does that before it dies of the signal that ended it."""

    def __init__(self, path: Path) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._inode = 0
        # The app may change the working directory.
        self._path = path.absolute()
        try:
            self.bind(str(path))
            self._inode = path.stat().st_ino
            path.chmod(_UNIX_MODE)
            # At once: a socket that nobody listens on looks like the one of a process that was killed.
            self.listen()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        # Another process may have put a file of its own there; no other has the inode of an open socket.
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._inode = 0
        super().close()


def _unix(stack: ExitStack, path: Path) -> socket.socket:
    if path.exists():
        _remove_stale(path)
    return stack.enter_context(_UnixListener(path))


def _remove_stale(path: Path) -> None:
    """Remove what a process has left that was killed; a server that is alive is left alone."""
    if not path.is_socket():
        msg = f"Cannot listen on unix:{path}: there is a file that is not a socket."
        raise SetupError(msg)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        # Who is too busy to be called is alive too.
        caller.settimeout(0.0)
        if caller.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()


def _inherited(stack: ExitStack, address: str, number: str) -> socket.socket:
    if not number.isdecimal() or int(number) >= 2**31:
        raise _not_an_address(address)
    duplicate = os.dup(int(number))
    try:
        listener = stack.enter_context(socket.socket(fileno=duplicate))
    except OSError:
        os.close(duplicate)
        raise
    if listener.type != socket.SOCK_STREAM:
        msg = f"Cannot listen on {address}: it is not a stream socket."
        raise SetupError(msg)
    with suppress(OSError):
        listener.getpeername()
        msg = f"Cannot listen on {address}: it is a connection, not a socket to listen on."
        raise SetupError(msg)
    return listener


def _not_an_address(address: str) -> SetupError:
    return SetupError(f"{address!r} does not say where to listen: write {_FORMS}.")
