"""Listening sockets: TCP, unix, and those inherited from the parent process."""

import errno
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from faststream.exceptions import SetupError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

_FORMS = "host:port, [::1]:port, unix:/dir/name.sock or fd://N"
_AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""One of the results of `socket.getaddrinfo`."""

_UNIX_MODE = 0o660
"""The default mode of a unix socket: its owner and its group may connect."""

_BOUND_SOCKETS = Path("/proc/net/unix")
"""Where Linux lists the unix sockets of all processes; the last column is the path as it was bound."""

_CLAIM = "faststream_adapters"
"""How the names of the abstract unix sockets begin that claim an address."""


def bind_addresses(options: Mapping[str, Any]) -> list[str]:
    """Return the addresses to listen on.

    Args:
        options: Those with an address: `bind` (one or several), `host` and `port`, `uds`, or `fd`.

    Raises:
        SetupError: The options exclude each other.
    """
    used = [
        " and ".join(f"--{name}" for name in group if options.get(name) is not None)
        for group in (("bind",), ("host", "port"), ("uds",), ("fd",))
        if any(options.get(name) is not None for name in group)
    ]
    if len(used) > 1:
        msg = f"{', '.join(used)} all set the address to listen on: use one."
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


def socket_mode(options: Mapping[str, Any]) -> int:
    """Return the mode of unix sockets.

    Args:
        options: `socket_mode` is the mode in octal digits, such as 660.

    Raises:
        SetupError: It is not a mode.
    """
    if (given := options.get("socket_mode")) is None:
        return _UNIX_MODE
    if not re.fullmatch("0?[0-7]{3}", str(given)):
        msg = f"--socket-mode must be three octal digits such as 660, not {given!r}."
        raise SetupError(msg)
    return int(str(given), 8)


def is_unix(address: str) -> bool:
    """Return whether an address is that of a unix socket."""
    return address.startswith("unix:")


def is_address(address: str) -> bool:
    """Return whether this is `host:port`, `[::1]:port` or `unix:/dir/name.sock`."""
    if is_unix(address):
        return address != "unix:"
    with suppress(SetupError):
        _host_and_port(address)
        return True
    return False


@contextmanager
def listening(
    addresses: Sequence[str], *, mode: int = _UNIX_MODE, shared: bool = False
) -> Iterator[list[socket.socket]]:
    """Open listening sockets; on exit, close them and remove the files of unix sockets.

    Args:
        addresses: Each is `host:port`, `[::1]:port`, `unix:/dir/name.sock` or `fd://N`; an empty host stands
            for all interfaces.
        mode: The mode of unix sockets.
        shared: Whether other worker processes listen on the same addresses.

    Raises:
        SetupError: An address is invalid or in use, or cannot be shared.
    """
    with ExitStack() as stack:
        yield [
            listener for address in addresses for listener in _open(stack, address, mode=mode, shared=shared)
        ]


@contextmanager
def claimed(listeners: Sequence[socket.socket]) -> Iterator[None]:
    """Share TCP addresses with the other children of this process's parent, and with no other process.

    SO_REUSEPORT alone shares them with every process of the same user. So each process that shares an address
    also binds an abstract unix socket, which ends with the process. Its name consists of the address, the id
    of the parent and that of the process. Only Linux has such names.

    Args:
        listeners: Sockets with shared addresses, on which nothing listens yet.

    Raises:
        SetupError: This process has the address already, or a process with another parent has it.
    """
    with ExitStack() as stack:
        if sys.platform == "linux":  # pragma: no branch (macOS takes the other branch)
            for listener in listeners:
                _claim(stack, *listener.getsockname()[:2])
        yield


def _claim(stack: ExitStack, host: str, port: int) -> None:
    address = f"{_CLAIM}/{host}:{port}/"
    siblings = f"{address}{os.getppid()}/"
    claim = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    in_use = SetupError(f"Cannot listen on {host}:{port}: {os.strerror(errno.EADDRINUSE)}.")
    try:
        claim.bind(f"\0{siblings}{os.getpid()}")
    except OSError as error:
        raise in_use from error
    if any(name.startswith(f"@{address}") and not name.startswith(f"@{siblings}") for name in _bound_names()):
        raise in_use


def listener_url(listener: socket.socket, scheme: str) -> str:
    """Return the URL of a server that listens on a socket.

    Args:
        listener: The socket.
        scheme: `http` or `https`.
    """
    if listener.family not in {socket.AF_INET, socket.AF_INET6}:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _open(stack: ExitStack, address: str, *, mode: int, shared: bool) -> list[socket.socket]:
    kind, _, rest = address.partition(":")
    try:
        if kind == "unix":
            if not rest:
                raise _invalid_address(address)
            _refuse_sharing(address, f"--uds {rest}", shared=shared)
            return [_open_unix(stack, Path(rest), mode)]
        if kind == "fd":
            _refuse_sharing(address, f"--fd {rest.lstrip('/')}", shared=shared)
            return [_open_inherited(stack, address, rest.lstrip("/"))]
        host, port = _host_and_port(address)
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _open_tcp(stack, infos, shared=shared)
    except (OSError, UnicodeError) as error:
        # Errors that Python itself raises, for example for a path that is too long, have no strerror.
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
    # Without brackets, the port would be indistinguishable from the last group of an IPv6 address.
    if not (colon and port.isdecimal() and int(port) < 2**16 and (bracketed or ":" not in host)):
        raise _invalid_address(address)
    return host.removeprefix("[").removesuffix("]") or None, int(port)


def _open_tcp(stack: ExitStack, infos: Sequence[_AddressInfo], *, shared: bool) -> list[socket.socket]:
    """Bind the addresses that a host name resolves to."""
    opened: list[socket.socket] = []
    unavailable: OSError | None = None
    for family, *_, target in infos:
        port = target[1]
        if shared and not port:
            msg = "With port 0 each worker would listen on a different port: choose one port for all."
            raise SetupError(msg)
        # With port 0, each of the addresses would get a different port.
        if opened and not port:
            break
        try:
            listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Otherwise it also takes the port on IPv4, where the next address may need it.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(target)
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
            # `localhost` resolves to an IPv6 address even on machines without IPv6.
            unavailable = error
        else:
            opened.append(listener)
    if unavailable is not None and not opened:
        raise unavailable
    return opened


class _UnixListener(socket.socket):
    """Removes its file on close. uvicorn closes its sockets before it re-raises a signal."""

    def __init__(self, path: Path, mode: int) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._inode = 0
        self._process = os.getpid()
        # Absolute, because the app may change the working directory.
        self._path = path.absolute()
        try:
            # The file gets its mode as it is created: a `chmod` follows whatever replaces the file meanwhile.
            umask = os.umask(0o777 & ~mode)
            try:
                self.bind(str(path))
            finally:
                os.umask(umask)
            self._inode = path.lstat().st_ino
            # Listen at once: until then, `_remove_stale` in another process takes the file for a stale one.
            self.listen()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        # Another process may have replaced the file; an inode is not reused while its socket is open.
        # A forked child closes its copy, and the parent goes on listening.
        with suppress(FileNotFoundError):
            if os.getpid() == self._process and self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        self._inode = 0
        super().close()


def _open_unix(stack: ExitStack, path: Path, mode: int) -> socket.socket:
    if path.exists():
        _remove_stale(path)
    return stack.enter_context(_UnixListener(path, mode))


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a killed process, but not that of a running server."""
    if not path.is_socket():
        msg = f"Cannot listen on unix:{path}: the file exists and is not a socket."
        raise SetupError(msg)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        # Do not wait: a server whose backlog is full is running too.
        client.settimeout(0.0)
        if client.connect_ex(str(path)) == errno.ECONNREFUSED and not _is_bound(path):
            path.unlink()


def _is_bound(path: Path) -> bool:
    """Return whether a process holds a socket at a path, also one that does not listen yet; only on Linux."""
    bound = _bound_names()
    # A relative path was bound in a directory that the list does not tell.
    absolute = (str(path.absolute()), str(path.resolve()))
    return any(one in absolute or any(name.endswith(f"/{one}") for name in absolute) for one in bound)


def _bound_names() -> list[str]:
    """Return the names of all unix sockets as they were bound, only on Linux. `@` begins an abstract one."""
    try:
        lines = _BOUND_SOCKETS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    columns = (line.split(maxsplit=7) for line in lines)
    return [row[7] for row in columns if len(row) == 8]  # noqa: PLR2004 (a socket without a path has 7)


def _open_inherited(stack: ExitStack, address: str, number: str) -> socket.socket:
    if not number.isdecimal() or int(number) >= 2**31:
        raise _invalid_address(address)
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
        msg = f"Cannot listen on {address}: it is a connected socket, not one to listen on."
        raise SetupError(msg)
    name = listener.getsockname()
    if not (name[1] if isinstance(name, tuple) else name):
        msg = f"Cannot listen on {address}: it is not bound to an address."
        raise SetupError(msg)
    return listener


def _invalid_address(address: str) -> SetupError:
    return SetupError(f"{address!r} is not an address to listen on: use {_FORMS}.")
