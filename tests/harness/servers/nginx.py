"""An nginx in front of an application."""

from __future__ import annotations

import shutil

from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer

_BINARY = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

MISSING = (
    None
    if _BINARY
    else "There is no nginx on this machine: install the operating system's package nginx-light, or nginx."
)
"""Why nginx cannot be started on this machine, or None if it can."""

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx(site: str) -> AppServer:
    """Return an nginx with one site, which listens on the port of the returned server.

    Args:
        site: The `server` block of the configuration, with `listen 80;`.
    """
    # One process, which neither detaches nor becomes another user.
    foreground = "daemon off; master_process off; pid nginx.pid; error_log stderr;"
    command = [_BINARY or "nginx", "-p", "{directory}", "-c", "nginx.conf", "-e", "stderr", "-g", foreground]
    server = AppServer(command)
    assert site.count("listen 80;") == 1
    listening = site.replace("listen 80;", f"listen {HOST}:{server.port};")
    paths = "\n".join(f"{name}_temp_path {name};" for name in _TEMPORARY)
    server.files["nginx.conf"] = f"events {{}}\nhttp {{\naccess_log off;\n{paths}\n{listening}\n}}\n"
    return server
