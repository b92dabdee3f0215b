"""Listening sockets of every kind, and the errors for addresses that cannot be used."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError

from faststream_adapters._server import sockets
from faststream_adapters._server.sockets import (
    _open_tcp,
    _UnixListener,
    bind_addresses,
    claimed,
    is_address,
    is_unix,
    listener_url,
    listening,
    socket_mode,
)
from tests.harness.servers import HOST, hold_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def port() -> Iterator[int]:
    number, held = hold_port()
    yield number
    if held is not None:  # pragma: no branch (it is None on macOS)
        held.close()


def accepts_connections(listener: socket.socket) -> bool:
    """Return whether a connection to the socket's address reaches this socket."""
    listener.listen()
    with socket.socket(listener.family) as peer:
        peer.settimeout(5)
        peer.connect(listener.getsockname())
        peer.sendall(b"hello")
        connection, _ = listener.accept()
        with connection:
            return connection.recv(5) == b"hello"


def listen_error(*addresses: str, shared: bool = False) -> str:
    """Return the message of the error that listening raises."""
    with ExitStack() as stack, pytest.raises(SetupError) as raised:
        stack.enter_context(listening(addresses, shared=shared))
    assert isinstance(raised.value.__cause__, OSError | UnicodeError | None)
    return str(raised.value)


def count_file_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


# --- addresses ---


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["127.0.0.1:8000"]),
        ({"host": None, "port": None, "bind": None, "uds": None, "fd": None}, ["127.0.0.1:8000"]),
        ({"port": "9000"}, ["127.0.0.1:9000"]),
        ({"port": 0}, ["127.0.0.1:0"]),
        ({"host": "0.0.0.0"}, ["0.0.0.0:8000"]),
        ({"host": "", "port": 80}, [":80"]),
        ({"host": "::1", "port": 80}, ["[::1]:80"]),
        ({"bind": "localhost:80"}, ["localhost:80"]),
        ({"bind": ["0.0.0.0:80", "[::]:80"]}, ["0.0.0.0:80", "[::]:80"]),
        ({"bind": ("unix:/run/a", "fd://3")}, ["unix:/run/a", "fd://3"]),
        ({"uds": "/run/a"}, ["unix:/run/a"]),
        ({"fd": "3"}, ["fd://3"]),
    ],
)
def test_options_select_the_addresses(options: dict[str, Any], expected: list[str]) -> None:
    assert bind_addresses(options) == expected


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bind": ":80", "port": 80}, "--bind, --port"),
        ({"host": "a", "port": 80, "uds": "b"}, "--host and --port, --uds"),
        ({"bind": "a", "host": "b", "uds": "c", "fd": 0}, "--bind, --host, --uds, --fd"),
    ],
)
def test_conflicting_address_options_are_setup_errors(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SetupError, match=f"^{named} all set the address to listen on: use one.$"):
        bind_addresses(options)


@pytest.mark.parametrize(
    "address",
    [
        "", "localhost", "80", "localhost:", "localhost:http", "localhost:-1", "localhost:65536",
        "::1:80", "[::1]", "[::1]80", "True", "unix:", "fd://", "fd://x", "fd://-1", "fd://99999999999",
    ],
)  # fmt: skip
def test_invalid_addresses_are_setup_errors(address: str) -> None:
    assert listen_error(address) == (
        f"{address!r} is not an address to listen on: "
        "use host:port, [::1]:port, unix:/dir/name.sock or fd://N."
    )


# --- TCP ---


@pytest.mark.parametrize(
    ("host", "family"),
    [
        (HOST, socket.AF_INET),
        ("localhost", socket.AF_INET),
        ("[::1]", socket.AF_INET6),
    ],
)
def test_tcp_listener_accepts_connections(host: str, family: int) -> None:
    with listening([f"{host}:0"]) as [listener]:
        assert listener.family in {family, socket.AF_INET6}
        assert accepts_connections(listener)
        number = listener.getsockname()[1]
        literal = "[::1]" if listener.family == socket.AF_INET6 else HOST
        assert listener_url(listener, "http") == f"http://{literal}:{number}"
    assert listener.fileno() == -1


@pytest.mark.parametrize("addresses", [["0.0.0.0:{}", "[::]:{}"], ["[::]:{}", "0.0.0.0:{}"], [":{}"]])
def test_ipv4_and_ipv6_share_a_port(addresses: list[str], port: int) -> None:
    with listening([address.format(port) for address in addresses]) as listeners:
        assert {listener.family for listener in listeners} == {socket.AF_INET, socket.AF_INET6}
        for listener in listeners:
            listener.listen()
        for host in (HOST, "::1"):
            socket.create_connection((host, port), timeout=5).close()
        assert sorted(listener_url(listener, "https") for listener in listeners) == [
            f"https://0.0.0.0:{port}",
            f"https://[::]:{port}",
        ]


def test_a_recently_used_port_can_be_reused(port: int) -> None:
    # Without SO_REUSEADDR a connection in TIME_WAIT would block the port.
    for _ in range(2):
        with listening([f"{HOST}:{port}"]) as [listener]:
            assert accepts_connections(listener)


def test_a_port_in_use_is_a_setup_error() -> None:
    with socket.create_server((HOST, 0)) as other:
        address = f"{HOST}:{other.getsockname()[1]}"
        before = count_file_descriptors()
        assert listen_error(f"{HOST}:0", address) == f"Cannot listen on {address}: Address already in use."
        assert count_file_descriptors() == before


@pytest.mark.parametrize(
    "address",
    [
        "host.invalid:80",
        # Longer than a DNS label may be.
        f"{'a' * 64}:80",
        # Reserved for documentation, so that no host has it.
        "192.0.2.1:80",
    ],
)
def test_a_foreign_host_is_a_setup_error(address: str) -> None:
    before = count_file_descriptors()
    assert re.search(f"^Cannot listen on {address}: .*[a-z].*$", listen_error(address))
    assert count_file_descriptors() == before


def test_a_name_listens_only_on_its_local_addresses(port: int) -> None:
    foreign = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))
    # Simulates IPv6 on a kernel that does not support it.
    unknown = (socket.AddressFamily(0), socket.SOCK_STREAM, 6, "", ("", port))
    local = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, port))
    with ExitStack() as stack:
        [listener] = _open_tcp(stack, [foreign, unknown, local], shared=False)
        assert listener.getsockname() == (HOST, port)
    with ExitStack() as stack:
        [listener] = _open_tcp(stack, [local, foreign], shared=False)
        assert listener.getsockname() == (HOST, port)
    with ExitStack() as stack, pytest.raises(OSError, match="not supported"):
        _open_tcp(stack, [foreign, unknown], shared=False)


def test_port_0_opens_one_listener() -> None:
    with listening([":0"]) as listeners:
        assert len(listeners) == 1


# --- addresses that workers share ---


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract unix sockets")
def test_an_address_is_shared_with_the_children_of_one_parent(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{HOST}:{port}"

    @contextmanager
    def process(number: int, parent: int) -> Iterator[None]:
        monkeypatch.setattr(os, "getpid", lambda: number)
        monkeypatch.setattr(os, "getppid", lambda: parent)
        with listening([address], shared=True) as listeners, claimed(listeners):
            yield

    def refused(number: int, parent: int) -> str:
        with pytest.raises(SetupError) as raised, process(number, parent):
            pytest.fail("It shares the address.")
        return str(raised.value)

    in_use = f"Cannot listen on {address}: Address already in use."
    with process(10, parent=1), process(11, parent=1):
        assert refused(20, parent=2) == in_use
        # Several listeners in one process would be given different connections.
        assert refused(11, parent=1) == in_use
    with process(20, parent=2):
        assert refused(10, parent=1) == in_use


def test_each_address_is_shared_on_its_own() -> None:
    # The kernel has chosen two ports.
    with listening([f"{HOST}:0", f"{HOST}:0"]) as listeners, claimed(listeners), claimed([]):
        assert len(listeners) == 2


@pytest.mark.parametrize("path", ["a", "/run/a.sock"])
def test_the_form_of_an_address(path: str) -> None:
    assert is_unix(f"unix:{path}")
    assert is_address(f"unix:{path}")
    assert not is_unix("unix.example:80")
    assert is_address("unix.example:80")
    assert not is_address("unix:")
    assert not is_address("fd://3")


# --- unix sockets ---


def test_unix_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with listening([f"unix:{path}"]) as [listener]:
        assert accepts_connections(listener)
        assert listener_url(listener, "http") == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


def test_unix_and_tcp_listeners_work_together(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with listening([f"unix:{path}", f"{HOST}:0"]) as listeners:
        assert [accepts_connections(listener) for listener in listeners] == [True, True]
    assert not path.exists()


def test_unix_socket_with_a_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    with listening(["unix:name.sock"]):
        assert (tmp_path / "name.sock").is_socket()
        monkeypatch.chdir(tmp_path / "other")
    assert not (tmp_path / "name.sock").exists()


def test_unix_socket_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    code = (
        "import os, signal, sys; from faststream_adapters._server.sockets import listening\n"
        "with listening([sys.argv[1]]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, f"unix:{path}"], check=False, timeout=60)
    assert path.is_socket()
    with listening([f"unix:{path}"]) as [listener]:
        assert accepts_connections(listener)
    assert not path.exists()


def test_unix_socket_of_a_running_server_is_a_setup_error(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    # The second one fails even before the first one accepts connections.
    with listening([f"unix:{path}"]) as [listener]:
        assert re.search(r"name.sock: Address already in use.$", listen_error(f"unix:{path}"))
        # Discards the connection by which the second one tested the socket.
        listener.accept()[0].close()
        assert accepts_connections(listener)


def test_unix_socket_of_a_server_with_a_full_backlog_is_a_setup_error(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        for _ in range(2):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.settimeout(0.0)
            peer.connect_ex(str(path))
        assert re.search(r"name.sock: Address already in use.$", listen_error(f"unix:{path}"))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_file_that_is_not_a_unix_socket_is_kept(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    if kind == "file":
        path.write_text("precious", encoding="utf-8")
    else:
        path.mkdir()
    assert re.search(r"name.sock: the file exists and is not a socket.$", listen_error(f"unix:{path}"))
    assert path.exists()


@pytest.mark.parametrize("name", ["missing/name.sock", "n" * 120])
def test_an_invalid_unix_path_is_a_setup_error(name: str, tmp_path: Path) -> None:
    assert re.search(
        r"^Cannot listen on unix:.*: (No such file|AF_UNIX path).*\.$",
        listen_error(f"unix:{tmp_path}/{name}"),
    )


def test_a_unix_socket_replaced_by_another_process_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with ExitStack() as stack:
        with listening([f"unix:{path}"]):
            path.unlink()
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.bind(str(path))
        assert path.is_socket()
        assert accepts_connections(other)


def test_unix_socket_is_removed_when_its_listener_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with listening([f"unix:{path}"]) as [listener]:
        listener.close()
        # Not only at the end of the block, which a server ended by a signal does not reach.
        assert not path.exists()
        with listening([f"unix:{path}"]) as [other]:
            listener.close()
            assert accepts_connections(other)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("given", [600, "660", "0666"])
def test_the_mode_of_a_unix_socket_is_set_as_it_is_created(umask: int, given: Any, tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    previous = os.umask(umask)
    try:
        with listening([f"unix:{path}"], mode=socket_mode({"socket_mode": given})):
            assert stat.S_IMODE(path.stat().st_mode) == int(str(given), 8)
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)


@pytest.mark.parametrize("given", ["", "66", "888", "rw-rw----", 0.5, ["660", "600"], True])
def test_an_invalid_socket_mode_is_a_setup_error(given: Any) -> None:
    with pytest.raises(SetupError, match=r"^--socket-mode must be three octal digits such as 660, not "):
        socket_mode({"socket_mode": given})


def test_a_symlink_that_replaces_a_unix_socket_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)

    class Replaced(_UnixListener):
        """A listener whose file is replaced as soon as it exists."""

        def bind(self, address: Any) -> None:
            super().bind(address)
            Path(address).unlink()
            Path(address).symlink_to(secret)

    Replaced(tmp_path / "name.sock", 0o660).close()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists bound sockets")
@pytest.mark.parametrize("bound_as", ["{directory}/name.sock", "name.sock"])
def test_unix_socket_that_does_not_listen_yet_is_a_setup_error(
    bound_as: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(bound_as.format(directory=tmp_path))
        assert re.search(r"name.sock: Address already in use.$", listen_error("unix:name.sock"))
        assert re.search(r"name.sock: Address already in use.$", listen_error(f"unix:{tmp_path}/name.sock"))
    with listening([f"unix:{tmp_path}/name.sock"]) as [listener]:
        assert accepts_connections(listener)


def test_without_a_list_of_bound_sockets_the_connection_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_BOUND_SOCKETS", tmp_path / "missing")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(f"{tmp_path}/name.sock")
    with listening([f"unix:{tmp_path}/name.sock"]) as [listener]:
        assert accepts_connections(listener)


def test_a_forked_child_keeps_the_socket_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    code = (
        "import os, sys; from faststream_adapters._server.sockets import listening\n"
        "with listening([sys.argv[1]]) as [listener]:\n"
        "    if (child := os.fork()) == 0:\n"
        "        listener.close()\n"
        "        sys.exit()\n"
        "    os.waitpid(child, 0)\n"
        "    print(os.path.exists(sys.argv[1][5:]))"
    )
    command = [sys.executable, "-c", code, f"unix:{path}"]
    ended = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert ended.stdout == "True\n"
    assert not path.exists()


def test_unix_socket_may_be_removed_by_another_process(tmp_path: Path) -> None:
    with listening([f"unix:{tmp_path}/name.sock"]):
        (tmp_path / "name.sock").unlink()
    assert list(tmp_path.iterdir()) == []


# --- inherited sockets ---


@pytest.mark.parametrize("form", ["fd://{}", "fd:{}"])
def test_an_inherited_socket_is_used_and_left_open(form: str) -> None:
    with socket.create_server((HOST, 0)) as inherited:
        with listening([form.format(inherited.fileno())]) as [listener]:
            assert listener.getsockname() == inherited.getsockname()
            assert accepts_connections(listener)
        assert accepts_connections(inherited)


def test_the_path_of_an_inherited_unix_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with socket.socket(socket.AF_UNIX) as inherited:
        inherited.bind(str(path))
        with listening([f"fd://{inherited.fileno()}"]) as [listener]:
            assert listener_url(listener, "http") == f"unix:{path}"
            assert accepts_connections(listener)
    # The process that created the file removes it.
    assert path.exists()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_descriptor_of_an_unbound_socket_is_a_setup_error(family: socket.AddressFamily) -> None:
    with socket.socket(family) as unbound:
        error = listen_error(f"fd://{unbound.fileno()}")
        assert re.search(r"^Cannot listen on fd://\d+: it is not bound to an address.$", error)


def test_a_descriptor_of_a_file_is_a_setup_error(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        before = count_file_descriptors()
        assert re.search(
            r"^Cannot listen on fd://\d+: .* non-socket\.$", listen_error(f"fd://{file.fileno()}")
        )
        assert count_file_descriptors() == before


def test_a_closed_descriptor_is_a_setup_error() -> None:
    with socket.socket() as inherited:
        number = inherited.fileno()
    assert re.search(
        f"^Cannot listen on fd://{number}: Bad file descriptor.$", listen_error(f"fd://{number}")
    )


def test_a_datagram_socket_is_a_setup_error() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as inherited:
        assert re.search("it is not a stream socket", listen_error(f"fd://{inherited.fileno()}"))
        # The socket is still open.
        assert inherited.getsockname()


def test_a_connected_socket_is_a_setup_error() -> None:
    # Under systemd, stderr is such a socket.
    one, two = socket.socketpair()
    with closing(one), closing(two):
        assert re.search("it is a connected socket", listen_error(f"fd://{one.fileno()}"))


# --- workers ---


def test_workers_share_a_port(port: int) -> None:
    code = (
        "import sys; from faststream_adapters._server.sockets import listening\n"
        "with listening([sys.argv[1]], shared=True) as [listener]:\n"
        "    listener.listen(); print('listening', flush=True); sys.stdin.read()"
    )
    address = f"{HOST}:{port}"
    with listening([address], shared=True) as [listener]:
        assert accepts_connections(listener)
        worker = subprocess.Popen(
            [sys.executable, "-c", code, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "listening\n"
        # Listening without `shared` fails.
        assert re.search("Address already in use", listen_error(address))
        worker.communicate(timeout=60)
        assert worker.returncode == 0
        assert accepts_connections(listener)


@pytest.mark.parametrize(
    ("address", "instead"),
    [
        ("unix:/run/name.sock", "--uds /run/name.sock"),
        ("fd://3", "--fd 3"),
    ],
)
def test_workers_cannot_share_unix_sockets_or_descriptors(address: str, instead: str) -> None:
    assert listen_error(address, shared=True) == (
        f"The workers that `faststream run` spawns cannot share {address}: "
        f"run `uvicorn main:app {instead} --workers N` instead, or leave out --workers."
    )


def test_workers_cannot_share_port_0() -> None:
    assert "each worker would listen on a different port" in listen_error(f"{HOST}:0", shared=True)
