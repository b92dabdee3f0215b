"""`publish_path` behind a real nginx: whose `X-Forwarded-Host` makes a host one's own."""

from __future__ import annotations

import sys

import httpx
import pytest

from tests.harness.servers import HOST
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nginx import MISSING, nginx

pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

APP = """
from faststream.nats import NatsBroker

from faststream_adapters import make_publish_asgi

broker = NatsBroker()
broker.publisher("numbers", schema=int)
app = make_publish_asgi(broker, authorize=lambda request: True)
"""

SITE = """
server {{
    listen 80;
    location / {{
        proxy_pass {upstream};
        {headers}
    }}
}}
"""

FORWARDED = (
    "proxy_set_header X-Forwarded-Host $host;",
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
)
PASSED_ON = ("proxy_set_header Host $host;",)
OTHER_HOST = (FORWARDED[0].replace("$host", "other.example"), FORWARDED[1])

BODY = {"channel": "numbers", "message": 1, "validate_only": True}

UVICORN = ("uvicorn", "main:app", "--host", HOST, "--port", "{port}", "--lifespan", "off")
HYPERCORN = ("hypercorn", "main:fixed", "--bind", f"{HOST}:{{port}}")
GRANIAN = ("granian", "main:trusting", "--interface", "asginl", "--host", HOST, "--port", "{port}")

FIXED = """
from hypercorn.middleware import ProxyFixMiddleware
from granian.utils.proxies import wrap_asgi_with_proxy_headers

fixed = ProxyFixMiddleware(app, mode="legacy", trusted_hops=1)
trusting = wrap_asgi_with_proxy_headers(app)
"""


@pytest.mark.parametrize(
    ("command", "headers", "expected"),
    [
        pytest.param(UVICORN, FORWARDED, 200, id="trusted"),
        pytest.param(UVICORN, PASSED_ON, 200, id="host", marks=pytest.mark.full),
        pytest.param(UVICORN, (), 403, id="nothing", marks=pytest.mark.full),
        pytest.param(UVICORN, FORWARDED[:1], 403, id="without-for", marks=pytest.mark.full),
        pytest.param(UVICORN, OTHER_HOST, 403, id="other-host", marks=pytest.mark.full),
        pytest.param(
            (*UVICORN, "--forwarded-allow-ips", "192.0.2.1"),
            FORWARDED,
            403,
            id="not-trusted",
            marks=pytest.mark.full,
        ),
        pytest.param(
            (*UVICORN, "--no-proxy-headers"), FORWARDED, 403, id="no-proxy-headers", marks=pytest.mark.full
        ),
        pytest.param(HYPERCORN, FORWARDED, 200, id="hypercorn", marks=pytest.mark.full),
        pytest.param(GRANIAN, FORWARDED, 200, id="granian", marks=pytest.mark.full),
    ],
)
def test_the_host_of_the_browser_is_own_if_the_proxy_is_trusted(
    command: tuple[str, ...], headers: tuple[str, ...], expected: int
) -> None:

    with AppServer([sys.executable, "-m", *command], app=APP + FIXED) as app:
        site = SITE.format(upstream=app.url, headers="\n        ".join(headers))
        with nginx(site) as proxy:
            browser = {"host": "public.example", "origin": "https://public.example"}
            browser["sec-fetch-site"] = "same-origin"
            assert httpx.post(proxy.url, json=BODY, headers=browser).status_code == expected
            # A page of another site sends its own origin, whatever the proxy adds.
            foreign = {"host": "public.example", "origin": "https://evil.example"}
            assert httpx.post(proxy.url, json=BODY, headers=foreign).status_code == 403
            # What a client claims changes nothing where the proxy writes over it. No page can make a browser
            # claim it, unless the application allows other origins to send these headers.
            claimed = {**foreign, "x-forwarded-host": "evil.example", "x-forwarded-for": "127.0.0.1"}
            if FORWARDED[0] in headers:
                assert httpx.post(proxy.url, json=BODY, headers=claimed).status_code == 403
            # A program is no browser.
            assert httpx.post(proxy.url, json=BODY).status_code == 200
