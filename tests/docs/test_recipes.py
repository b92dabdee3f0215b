"""docs/dead-letters.md, retries.md, ordering.md, tenants.md and helm.md: their code does what they say."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from faststream.nats import NatsBroker

from faststream_adapters import BrokerStartError
from tests.docs.blocks import ROOT, code_blocks, eventually, load, python_blocks, served, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

PAGES = ("dead-letters", "retries", "ordering", "tenants")


def block(page: str) -> str:
    """Return the only Python block of a page."""
    [only] = python_blocks(f"docs/{page}.md").values()
    return only.code


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_one_block(page: str) -> None:
    assert block(page)


async def test_a_message_that_fails_three_times_becomes_a_dead_letter(
    nats_js: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NATS_URL", nats_js.url)
    module = load(block("dead-letters"), tmp_path)
    async with served(module.app):
        for quantity in ("tea", 0, 50):
            await module.broker.publish(quantity, "orders", stream="shop")
        context = module.broker.connection.jetstream()

        async def settled() -> bool:
            state = (await context.stream_info("dead")).state
            consumer = await context.consumer_info("shop", "order-service")
            return bool(state.messages == 2 and consumer.num_ack_pending == consumer.num_pending == 0)

        await wait_until(settled)
        dead = {
            message.headers["x-error"]: (message.headers["x-subject"], message.data)
            for message in [await context.get_msg("dead", number) for number in (1, 2)]
            if message.headers is not None
        }
    assert dead == {"ValidationError": ("orders", b"tea"), "ZeroDivisionError": ("orders", b"0")}
    assert "2" in capsys.readouterr().out.splitlines()


async def test_a_message_is_repeated_until_it_succeeds(
    nats_js: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL", nats_js.url)
    monkeypatch.setenv("FIRST_DELAY", "0.01")
    module = load(block("retries"), tmp_path)
    async with served(module.app):
        await module.broker.publish("tea", "orders", stream="shop")
        context = module.broker.connection.jetstream()

        async def handled() -> bool:
            consumer = await context.consumer_info("shop", "order-service")
            return len(module.attempts) == 3 and consumer.num_ack_pending == 0

        await wait_until(handled)


async def test_two_processes_handle_messages_in_their_order(nats_js: NatsServer, tmp_path: Path) -> None:
    create = load(block("ordering"), tmp_path).create
    handled: list[int] = []
    async with create(nats_js.url, handled), create(nats_js.url, handled), NatsBroker(nats_js.url) as broker:
        for number in range(20):
            await broker.publish(number, "orders", stream="shop")

        async def complete() -> bool:
            return len(handled) == 20

        await wait_until(complete)
    assert handled == list(range(20))


@pytest.mark.full
async def test_tenants_start_and_stop_while_the_service_runs(
    shared_nats: NatsServer, nats: NatsServer, tmp_path: Path
) -> None:
    module = load(block("tenants"), tmp_path)
    urls = {"acme": shared_nats.url, "globex": nats.url}
    async with served(module.app) as client, AsyncExitStack() as stack:
        brokers = {name: await stack.enter_async_context(NatsBroker(url)) for name, url in urls.items()}
        for tenant, url in urls.items():
            await module.tenants.start(tenant, url)
        await eventually(client, "/tenants", {"acme": "running", "globex": "running"})
        for lifespan in module.tenants.lifespans.values():
            # After this round trip, its server has registered the subscription.
            assert [await broker.ping(5.0) for broker in lifespan.brokers] == [True]
        for tenant, broker in brokers.items():
            await broker.publish(f"tea of {tenant}", "orders")

        async def both_handled() -> bool:
            return sorted(module.handled) == [(name, f"tea of {name}") for name in urls]

        await wait_until(both_handled)
        await module.tenants.stop("acme")
        await eventually(client, "/tenants", {"globex": "running"})
        with pytest.raises(BrokerStartError):
            await asyncio.create_task(module.tenants.start("initech", "nats://127.0.0.1:1"))
        await eventually(client, "/tenants", {"globex": "running"})
    assert module.tenants.lifespans == {}


def test_the_values_of_helm_are_those_of_the_manifest() -> None:
    (values,) = (yaml.safe_load(each.code) for each in code_blocks("docs/helm.md", "yaml").values())
    manifest = (ROOT / "examples" / "kubernetes" / "deployment.yaml").read_text(encoding="utf-8")
    deployment: dict[str, Any] = next(iter(yaml.safe_load_all(manifest)))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container[name]
        probe["httpGet"]["port"] = ports[probe["httpGet"]["port"]]
    for name in ("livenessProbe", "readinessProbe", "securityContext", "resources"):
        assert values[name] == container[name]
    assert values["replicaCount"] == deployment["spec"]["replicas"]
    assert f"{values['image']['repository']}:{values['image']['tag']}" == container["image"]
    assert values["service"]["port"] == ports["http"]
    text = (ROOT / "docs" / "helm.md").read_text(encoding="utf-8")
    startup = container["startupProbe"]
    assert f"`path: {startup['httpGet']['path']}`, `periodSeconds: {startup['periodSeconds']}`" in text
    assert f"`failureThreshold: {startup['failureThreshold']}`" in text
    assert f"`terminationGracePeriodSeconds: {pod['terminationGracePeriodSeconds']}`" in text
