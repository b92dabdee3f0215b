"""Metrics and the documentation's alerts, with a real Prometheus server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.docs.blocks import code_blocks
from tests.harness.servers import poll
from tests.harness.servers.asgi import AppServer
from tests.harness.servers.prometheus import MISSING, PrometheusServer, promtool

if TYPE_CHECKING:
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

APP = """
import os
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.prometheus import NatsPrometheusMiddleware
from prometheus_client import REGISTRY

from faststream_adapters import AsgiFastStream, AsgiResponse, get

broker = NatsBroker(os.environ["NATS_URL"], middlewares=[NatsPrometheusMiddleware(registry=REGISTRY)])


@broker.subscriber("scraped.orders")
async def handle(order: str) -> None:
    print(order)


@broker.subscriber("jobs", stream=JStream("jobs"), durable="worker", pull_sub=PullSub())
async def work(job: str) -> None:
    print(job)


@get
async def pause() -> AsgiResponse:
    await broker.connection.jetstream().pause_consumer("jobs", "worker", "2999-01-01T00:00:00Z")
    return AsgiResponse(b"", 204)


@get
async def resume() -> AsgiResponse:
    await broker.connection.jetstream().resume_consumer("jobs", "worker")
    return AsgiResponse(b"", 204)


@get
async def publish() -> AsgiResponse:
    await broker.publish("tea", "scraped.orders")
    return AsgiResponse(b"", 204)


app = AsgiFastStream(
    broker,
    asgi_routes=[("/publish", publish), ("/pause", pause), ("/resume", resume)],
    metrics_path="/metrics",
    startup_path="/startup",
)
"""


def served(nats: NatsServer) -> AppServer:
    return AppServer.uvicorn(APP, env={"NATS_URL": nats.url}, ready_path="/startup")


@pytest.mark.full
def test_promtool_accepts_the_metrics(nats_js: NatsServer) -> None:
    with served(nats_js) as server:
        httpx.get(f"{server.url}/publish", timeout=30)
        last_success = "faststream_adapters_broker_last_success_timestamp_seconds"
        assert poll(lambda: f"\n{last_success}{{" in httpx.get(f"{server.url}/metrics", timeout=30).text, 30)
        text = httpx.get(f"{server.url}/metrics", timeout=30).text
    # promtool also criticizes metric names, including those of prometheus_client and FastStream.
    assert "faststream_adapters" not in promtool("check", "metrics", text=text)


@pytest.mark.full
def test_prometheus_can_query_the_metrics(nats_js: NatsServer) -> None:
    with served(nats_js) as server, PrometheusServer(server.port) as prometheus:
        httpx.get(f"{server.url}/publish", timeout=30)
        assert poll(lambda: prometheus.query("faststream_received_processed_messages_total") != [], 30)
        assert prometheus.target()["health"] == "up"
        assert prometheus.target()["lastError"] == ""
        instance = {"instance": f"127.0.0.1:{server.port}", "job": "service"}
        broker = {**instance, "broker": "NatsBroker 1"}
        assert prometheus.query("up") == [({"__name__": "up", **instance}, 1)]
        assert prometheus.query("max by(instance, job, broker)(faststream_adapters_broker_up)") == [
            (broker, 1)
        ]
        [(state, _)] = prometheus.query("faststream_adapters_lifecycle_state == 1")
        assert state["state"] == "running"
        seconds_since = "time() - faststream_adapters_broker_last_success_timestamp_seconds"
        assert poll(lambda: prometheus.query(seconds_since), 30)[0][1] < 60
        count = "faststream_adapters_broker_round_trip_duration_seconds_count"
        assert poll(lambda: prometheus.query(f"{count} > 0"), 30)
        [(_, received)] = prometheus.query('faststream_received_messages_total{handler="scraped.orders"}')
        assert received == 1


@pytest.mark.full
def test_the_documented_alerts_fire_and_resolve(nats_js: NatsServer, tmp_path: Path) -> None:
    alerts = code_blocks("docs/metrics.md", "yaml")["Alerts 1"].code
    rules = tmp_path / "rules.yml"
    # The same rules with shorter times.
    rules.write_text(alerts.replace("for: 1m", "for: 1s").replace("> 60", "> 3"), encoding="utf-8")
    with served(nats_js) as server, PrometheusServer(server.port, rules=rules) as prometheus:
        up = "faststream_adapters_broker_up == 1"
        assert poll(lambda: prometheus.query(up), 30)
        assert prometheus.firing() == set()
        nats_js.freeze()
        assert poll(lambda: prometheus.firing() == {"BrokerDown", "BrokerSilent"}, 60)
        nats_js.thaw()
        assert poll(lambda: prometheus.firing() == set(), 60)
        httpx.get(f"{server.url}/pause", timeout=30)
        assert poll(lambda: prometheus.firing() == {"SubscriberDoesNotConsume"}, 60)
        httpx.get(f"{server.url}/resume", timeout=30)
        assert poll(lambda: prometheus.firing() == set(), 60)
