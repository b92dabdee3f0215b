"""Where a server listens: real sockets of every kind, and a clear sentence where there can be none."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faststream.exceptions import SetupError

from faststream_adapters.binding import _tcp, binds, listening, url_of
from tests.servers import HOST, hold_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def port() -> Iterator[int]:
    number, held = hold_port()
    yield number
    if held is not None:  # pragma: no branch (macOS has none)
        held.close()


def answers(listener: socket.socket) -> bool:
    """Return whether a caller reaches this very socket."""
    listener.listen()
    with socket.socket(listener.family) as caller:
        caller.settimeout(5)
        caller.connect(listener.getsockname())
        caller.sendall(b"hello")
        taken, _ = listener.accept()
        with taken:
            return taken.recv(5) == b"hello"


def refusal(*addresses: str, shared: bool = False) -> str:
    """Return what is said instead of listening."""
    with ExitStack() as stack, pytest.raises(SetupError) as raised:
        stack.enter_context(listening(addresses, shared=shared))
    assert isinstance(raised.value.__cause__, OSError | UnicodeError | None)
    return str(raised.value)


def number_of_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


# --- which addresses ---


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
def test_addresses(options: dict[str, Any], expected: list[str]) -> None:
    assert binds(options) == expected


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bind": ":80", "port": 80}, "--bind, --port"),
        ({"host": "a", "port": 80, "uds": "b"}, "--host and --port, --uds"),
        ({"bind": "a", "host": "b", "uds": "c", "fd": 0}, "--bind, --host, --uds, --fd"),
    ],
)
def test_two_ways_at_once_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SetupError, match=f"^{named} all say where to listen: give one of them.$"):
        binds(options)


@pytest.mark.parametrize(
    "address",
    [
        "", "localhost", "80", "localhost:", "localhost:http", "localhost:-1", "localhost:65536",
        "::1:80", "[::1]", "[::1]80", "True", "unix:", "fd://", "fd://x", "fd://-1", "fd://99999999999",
    ],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    assert refusal(address) == (
        f"{address!r} does not say where to listen: "
        "write host:port, [::1]:port, unix:/dir/name.sock or fd://N."
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
def test_tcp(host: str, family: int) -> None:
    with listening([f"{host}:0"]) as [listener]:
        assert listener.family in {family, socket.AF_INET6}
        assert answers(listener)
        number = listener.getsockname()[1]
        literal = "[::1]" if listener.family == socket.AF_INET6 else HOST
        assert url_of(listener, "http") == f"http://{literal}:{number}"
    assert listener.fileno() == -1


@pytest.mark.parametrize("addresses", [["0.0.0.0:{}", "[::]:{}"], ["[::]:{}", "0.0.0.0:{}"], [":{}"]])
def test_both_protocols_on_one_port(addresses: list[str], port: int) -> None:
    with listening([address.format(port) for address in addresses]) as listeners:
        assert {listener.family for listener in listeners} == {socket.AF_INET, socket.AF_INET6}
        for listener in listeners:
            listener.listen()
        for host in (HOST, "::1"):
            socket.create_connection((host, port), timeout=5).close()
        assert sorted(url_of(listener, "https") for listener in listeners) == [
            f"https://0.0.0.0:{port}",
            f"https://[::]:{port}",
        ]


def test_a_port_that_was_used_just_now(port: int) -> None:
    # Without SO_REUSEADDR the connection that lingers would keep it.
    for _ in range(2):
        with listening([f"{HOST}:{port}"]) as [listener]:
            assert answers(listener)


def test_a_port_in_use() -> None:
    with socket.create_server((HOST, 0)) as other:
        address = f"{HOST}:{other.getsockname()[1]}"
        before = number_of_files()
        assert refusal(f"{HOST}:0", address) == f"Cannot listen on {address}: Address already in use."
        assert number_of_files() == before


@pytest.mark.parametrize(
    "address",
    [
        "host.invalid:80",
        # Longer than a name may be.
        f"{'a' * 64}:80",
        # Reserved for documentation: nobody has it.
        "192.0.2.1:80",
    ],
)
def test_a_host_that_is_not_ours(address: str) -> None:
    before = number_of_files()
    assert re.search(f"^Cannot listen on {address}: .*[a-z].*$", refusal(address))
    assert number_of_files() == before


def test_a_name_with_an_address_that_is_not_ours(port: int) -> None:
    other = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))
    # Stands for IPv6 where the kernel has none.
    unknown = (socket.AddressFamily(0), socket.SOCK_STREAM, 6, "", ("", port))
    own = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (HOST, port))
    with ExitStack() as stack:
        [listener] = _tcp(stack, [other, unknown, own], shared=False)
        assert listener.getsockname() == (HOST, port)
    with ExitStack() as stack:
        [listener] = _tcp(stack, [own, other], shared=False)
        assert listener.getsockname() == (HOST, port)
    with ExitStack() as stack, pytest.raises(OSError, match="not supported"):
        _tcp(stack, [other, unknown], shared=False)


def test_port_0_is_one_port() -> None:
    with listening([":0"]) as listeners:
        assert len(listeners) == 1


# --- unix sockets ---


def test_unix(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with listening([f"unix:{path}"]) as [listener]:
        assert answers(listener)
        assert url_of(listener, "http") == f"unix:{path}"
        # Who may come in is said by the directory.
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert not path.exists()


def test_unix_and_tcp_at_once(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with listening([f"unix:{path}", f"{HOST}:0"]) as listeners:
        assert [answers(listener) for listener in listeners] == [True, True]
    assert not path.exists()


def test_unix_when_the_working_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    with listening(["unix:name.sock"]):
        assert (tmp_path / "name.sock").is_socket()
        monkeypatch.chdir(tmp_path / "other")
    assert not (tmp_path / "name.sock").exists()


def test_unix_after_a_process_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    code = (
        "import os, signal, sys; from faststream_adapters.binding import listening\n"
        "with listening([sys.argv[1]]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, f"unix:{path}"], check=False, timeout=60)
    assert path.is_socket()
    with listening([f"unix:{path}"]) as [listener]:
        assert answers(listener)
    assert not path.exists()


def test_unix_of_a_server_that_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    # The second one is refused even before the first has begun to serve.
    with listening([f"unix:{path}"]) as [listener]:
        assert re.search(r"name.sock: Address already in use.$", refusal(f"unix:{path}"))
        # What came of the question is not a caller to be served.
        listener.accept()[0].close()
        assert answers(listener)


def test_unix_of_a_server_that_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        for _ in range(2):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.settimeout(0.0)
            caller.connect_ex(str(path))
        assert re.search(r"name.sock: Address already in use.$", refusal(f"unix:{path}"))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_unix_where_something_else_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    if kind == "file":
        path.write_text("precious", encoding="utf-8")
    else:
        path.mkdir()
    assert re.search(r"name.sock: there is a file that is not a socket.$", refusal(f"unix:{path}"))
    assert path.exists()


@pytest.mark.parametrize("name", ["missing/name.sock", "n" * 120])
def test_unix_where_nothing_can_be(name: str, tmp_path: Path) -> None:
    assert re.search(
        r"^Cannot listen on unix:.*: (No such file|AF_UNIX path).*\.$", refusal(f"unix:{tmp_path}/{name}")
    )


def test_unix_that_somebody_else_has_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with ExitStack() as stack:
        with listening([f"unix:{path}"]):
            path.unlink()
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.bind(str(path))
        assert path.is_socket()
        assert answers(other)


def test_unix_that_the_server_has_closed(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with listening([f"unix:{path}"]) as [listener]:
        listener.close()
        # Now: a server may die of a signal before the end of the block.
        assert not path.exists()
        with listening([f"unix:{path}"]) as [other]:
            listener.close()
            assert answers(other)


def test_unix_that_somebody_else_has_removed(tmp_path: Path) -> None:
    with listening([f"unix:{tmp_path}/name.sock"]):
        (tmp_path / "name.sock").unlink()
    assert list(tmp_path.iterdir()) == []


# --- sockets of the parent process ---


@pytest.mark.parametrize("form", ["fd://{}", "fd:{}"])
def test_an_inherited_socket(form: str) -> None:
    with socket.create_server((HOST, 0)) as given:
        with listening([form.format(given.fileno())]) as [listener]:
            assert listener.getsockname() == given.getsockname()
            assert answers(listener)
        # It was ours to use, not to close.
        assert answers(given)


def test_an_inherited_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "name.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        with listening([f"fd://{given.fileno()}"]) as [listener]:
            assert url_of(listener, "http") == f"unix:{path}"
            assert answers(listener)
    # Who has made the file removes it.
    assert path.exists()


def test_a_file_that_is_no_socket(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        before = number_of_files()
        assert re.search(r"^Cannot listen on fd://\d+: .* non-socket\.$", refusal(f"fd://{file.fileno()}"))
        assert number_of_files() == before


def test_a_descriptor_that_is_closed() -> None:
    with socket.socket() as given:
        number = given.fileno()
    assert re.search(f"^Cannot listen on fd://{number}: Bad file descriptor.$", refusal(f"fd://{number}"))


def test_a_datagram_socket() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as given:
        assert re.search("it is not a stream socket", refusal(f"fd://{given.fileno()}"))
        # It is not closed.
        assert given.getsockname()


def test_a_connection() -> None:
    # What stderr is under systemd.
    one, two = socket.socketpair()
    with closing(one), closing(two):
        assert re.search("it is a connection", refusal(f"fd://{one.fileno()}"))


# --- workers ---


def test_workers_share_a_port(port: int) -> None:
    code = (
        "import sys; from faststream_adapters.binding import listening\n"
        "with listening([sys.argv[1]], shared=True) as [listener]:\n"
        "    listener.listen(); print('listening', flush=True); sys.stdin.read()"
    )
    address = f"{HOST}:{port}"
    with listening([address], shared=True) as [listener]:
        assert answers(listener)
        worker = subprocess.Popen(
            [sys.executable, "-c", code, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "listening\n"
        # Who does not share is turned away.
        assert re.search("Address already in use", refusal(address))
        worker.communicate(timeout=60)
        assert worker.returncode == 0
        assert answers(listener)


@pytest.mark.parametrize(
    ("address", "instead"),
    [
        ("unix:/run/name.sock", "--uds /run/name.sock"),
        ("fd://3", "--fd 3"),
    ],
)
def test_what_workers_cannot_share(address: str, instead: str) -> None:
    assert refusal(address, shared=True) == (
        f"The workers that `faststream run` spawns cannot share {address}: "
        f"run `uvicorn main:app {instead} --workers N` instead, or leave out --workers."
    )


def test_workers_need_one_port() -> None:
    assert re.search("Each worker would get a port of its own", refusal(f"{HOST}:0", shared=True))
