"""Certificates for servers of the tests."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.harness.servers import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def self_signed(directory: Path) -> Path:
    """Create a self-signed certificate for this host, and a key with the suffix `.key` next to it."""
    path = directory / "certificate.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=test"
    )
    names = ["-addext", f"subjectAltName=IP:{HOST}"]
    files = ["-out", str(path), "-keyout", str(path.with_suffix(".key"))]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return path


@contextmanager
def serving_certificate(certificate: Path) -> Iterator[int]:
    """Accept connections, make a TLS handshake with this certificate on each, and yield the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    def serve(listener: socket.socket) -> None:
        # It ends when the listener is shut down.
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    context.wrap_socket(connection, server_side=True).close()

    with socket.create_server((HOST, 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
