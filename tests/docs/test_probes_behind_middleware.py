"""docs/probes-behind-middleware.md: each recipe opens the probes, and nothing else; nginx finds the rest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urljoin

import httpx
import pytest
import yaml

from tests.docs.blocks import at_nats, code_blocks, load, python_blocks, served
from tests.harness.management import answer
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.nginx import MISSING, nginx

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

PAGE = "docs/probes-behind-middleware.md"
BLOCKS = python_blocks(PAGE)
PROBES = ("/livez", "/readyz")

# What the kubelet sends, what lacks HTTPS, the application's host or a login, and what lacks nothing.
REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "kubelet": ("http://10.0.0.7:8000", {}),
    "host": ("http://example.com", {"authorization": "Bearer secret"}),
    "https": ("https://10.0.0.7:8000", {"authorization": "Bearer secret"}),
    "no login": ("https://example.com", {}),
    "user": ("https://example.com", {"authorization": "Bearer secret"}),
}


class Recipe(NamedTuple):
    """The statuses that a page without the recipe has, and what to change in the block for that.

    Args:
        changes: Texts of the block, and what takes their place.
        statuses: What each request gets, by its name in `REQUESTS`.
        page: The page that the application still protects, if it has one that responds.
    """

    changes: dict[str, str]
    statuses: dict[str, int]
    page: str | None = "/asyncapi"


INNERMOST = 'liveness_path="/livez", readiness_path="/readyz")'
RECIPES = {
    "FastAPI 1": Recipe(
        {
            f"app.add_middleware(FastStreamMiddleware, lifespan, {INNERMOST}": (
                f"app.include_router(FastStreamRouter(lifespan, {INNERMOST})"
            )
        },
        {"kubelet": 307, "host": 307, "https": 400, "no login": 401, "user": 200},
    ),
    "Litestar 1": Recipe(
        {'opt={"exclude_from_auth": True, "exclude_from_allowed_hosts": True}': "opt={}"},
        {"kubelet": 401, "host": 200, "https": 400, "no login": 401, "user": 200},
    ),
    "Quart 1": Recipe(
        {'PROBES = {"faststream_livez", "faststream_readyz"}': "PROBES = set()"},
        {"kubelet": 307, "host": 307, "https": 400, "no login": 401, "user": 200},
    ),
    "Any other application 1": Recipe(
        {
            "protected = Login(\n    Starlette(": "inner = Starlette(\n    **dict(",
            f"app = FastStreamMiddleware(protected, NatsBroker(), {INNERMOST}": (
                "app = Login(HTTPSRedirectMiddleware(TrustedHostMiddleware("
                f"FastStreamMiddleware(inner, NatsBroker(), {INNERMOST}, allowed_hosts=['example.com'])))"
            ),
        },
        {"kubelet": 401, "host": 307, "https": 400, "no login": 401, "user": 200},
        page=None,
    ),
    "Any other application 2": Recipe(
        {
            '"/asyncapi")': f'"/asyncapi", {INNERMOST}',
            f"app = FastStreamMiddleware(protected, service, {INNERMOST}": "app = protected",
        },
        {"kubelet": 307, "host": 307, "https": 400, "no login": 200, "user": 200},
    ),
}


OWN_ADDRESS = "Probes behind middleware and proxies 1"
PREFIXED = [f"A proxy in front {number}" for number in (1, 2)]


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {*RECIPES, *PREFIXED, OWN_ADDRESS}


def changed(code: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    return code


async def statuses(client: Any, path: str) -> dict[str, int]:
    return {
        name: (await client.get(url + path, headers=headers)).status_code
        for name, (url, headers) in REQUESTS.items()
    }


@pytest.mark.parametrize("name", RECIPES)
async def test_the_recipe_opens_the_probes_and_protects_the_rest(
    name: str, shared_nats: NatsServer, tmp_path: Path
) -> None:
    recipe = RECIPES[name]
    async with served(load(at_nats(BLOCKS[name].code, shared_nats.url), tmp_path).app) as client:
        for path in PROBES:
            assert await statuses(client, path) == dict.fromkeys(REQUESTS, 200)
        if recipe.page:
            assert await statuses(client, recipe.page) == recipe.statuses


@pytest.mark.parametrize("name", RECIPES)
async def test_the_probes_fail_without_the_recipe(name: str, shared_nats: NatsServer, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    code = at_nats(changed(BLOCKS[name].code, recipe.changes), shared_nats.url)
    async with served(load(code, tmp_path).app) as client:
        for path in PROBES:
            assert await statuses(client, path) == recipe.statuses


async def test_the_probes_at_an_address_of_their_own_are_open_and_the_rest_is_protected(
    shared_nats: NatsServer, tmp_path: Path, free_address: str
) -> None:
    code = changed(at_nats(BLOCKS[OWN_ADDRESS].code, shared_nats.url), {"0.0.0.0:8081": free_address})
    async with served(load(code, tmp_path).app) as client:
        for path in PROBES:
            assert await answer(free_address, path) == "200 ok"
            assert (await client.get(f"https://example.com{path}")).status_code == 404
        assert (await client.get("/asyncapi")).status_code == 307
        assert (await client.get("https://example.com/asyncapi")).status_code == 200


async def test_a_host_in_the_manifest_is_trusted(shared_nats: NatsServer, tmp_path: Path) -> None:
    (block,) = code_blocks(PAGE, "yaml").values()
    probe = yaml.safe_load(block.code)["httpGet"]
    code = changed(
        BLOCKS["Any other application 2"].code,
        {
            **RECIPES["Any other application 2"].changes,
            "HTTPSRedirectMiddleware(TrustedHostMiddleware(service": "(TrustedHostMiddleware(service",
        },
    )
    async with served(load(at_nats(code, shared_nats.url), tmp_path).app) as client:
        url = f"http://10.0.0.7:8000{probe['path']}"
        assert (await client.get(url)).status_code == 400
        headers = {each["name"]: each["value"] for each in probe["httpHeaders"]}
        assert (await client.get(url, headers=headers)).status_code == 200


# A proxy in front

needs_nginx = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
KEEPS = "proxy_pass http://127.0.0.1:8000;"
REMOVES = "proxy_pass http://127.0.0.1:8000/;"


def proxy(application: AppServer, *, removes: bool = False) -> AppServer:
    """Return nginx with the page's configuration in front of an application."""
    (block,) = code_blocks(PAGE, "nginx").values()
    changes = {KEEPS: REMOVES.replace("8000", "{}") if removes else KEEPS.replace("8000", "{}")}
    return nginx(changed(block.code, changes).replace("{}", str(application.port)))


def resources(http: httpx.Client, page: str) -> dict[str, int]:
    """Return the statuses of a page and of what it links to on the same server, by path."""
    response = http.get(page)
    links = {urljoin(page, link) for link in re.findall(r'(?:href|src)="([^"#:]+)"', response.text)}
    return {page: response.status_code} | {path: http.get(path).status_code for path in sorted(links)}


@pytest.mark.full
@needs_nginx
@pytest.mark.parametrize("name", PREFIXED)
def test_the_page_and_its_links_are_found_behind_a_proxy_that_keeps_the_prefix(
    name: str, shared_nats: NatsServer
) -> None:
    application = AppServer.uvicorn(at_nats(BLOCKS[name].code, shared_nats.url))
    with application, proxy(application) as front, httpx.Client(base_url=front.url) as http:
        found = resources(http, "/shop/asyncapi")
        assert set(found.values()) == {200}
        assert "/shop/asyncapi/asyncapi.json" in found
        for path in PROBES:
            assert httpx.get(application.url + path).status_code == 200
            assert http.get(f"/shop{path}").status_code == 404


@pytest.mark.full
@needs_nginx
@pytest.mark.parametrize("options", [(), ("--root-path", "/shop")], ids=["plain", "root_path"])
def test_the_page_and_its_links_are_found_behind_a_proxy_that_removes_the_prefix(
    options: tuple[str, ...], shared_nats: NatsServer
) -> None:
    code = changed(BLOCKS[PREFIXED[1]].code, {"/shop/asyncapi": "/asyncapi"})
    application = AppServer.uvicorn(at_nats(code, shared_nats.url), *options)
    with (
        application,
        proxy(application, removes=True) as front,
        httpx.Client(base_url=front.url) as http,
    ):
        found = resources(http, "/shop/asyncapi")
        assert set(found.values()) == {200}
        assert "/shop/asyncapi/asyncapi.json" in found


@pytest.mark.full
@needs_nginx
def test_nothing_is_found_with_a_root_path_of_uvicorn_and_a_proxy_that_keeps_the_prefix(
    shared_nats: NatsServer,
) -> None:
    code = changed(BLOCKS[PREFIXED[1]].code, {"/shop/asyncapi": "/asyncapi"})
    application = AppServer.uvicorn(at_nats(code, shared_nats.url), "--root-path", "/shop")
    with application, proxy(application) as front, httpx.Client(base_url=front.url) as http:
        assert http.get("/shop/asyncapi").status_code == 404
        assert httpx.get(f"{application.url}/asyncapi").status_code == 200
