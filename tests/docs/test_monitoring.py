"""The alerts, the dashboard and the autoscalers of docs/metrics.md."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import pytest
import yaml
from faststream.nats import NatsBroker
from faststream.nats.prometheus import NatsPrometheusMiddleware
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry

from faststream_adapters import AsgiFastStream, HealthCheck
from tests.docs.blocks import ROOT, code_blocks
from tests.harness.scrapes import Scrape, scrape
from tests.harness.servers.prometheus import MISSING, promtool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.servers.nats import NatsServer

PAGE = "docs/metrics.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
BLOCKS = {name: block.code for name, block in code_blocks(PAGE, "yaml").items()}
RULES, ALERTS = BLOCKS["Backlog 1"], BLOCKS["Alerts 1"]
TOTAL = yaml.safe_load(RULES)["groups"][0]["rules"][0]["record"]
DASHBOARD = json.loads((ROOT / "examples/grafana/faststream-adapters.json").read_text(encoding="utf-8"))
MANIFESTS = {
    name: yaml.safe_load((ROOT / "examples/kubernetes" / f"{name}.yaml").read_text(encoding="utf-8"))
    for name in ("keda", "hpa")
}
DEPLOYMENT = next(
    each
    for each in yaml.safe_load_all((ROOT / "examples/kubernetes/deployment.yaml").read_text(encoding="utf-8"))
    if each["kind"] == "Deployment"
)
PREFIX = "faststream_adapters_"
BROKER = 'broker="NatsBroker 1", instance="a", job="orders"'
SUBSCRIBER = f'{BROKER}, subscriber="process"'


def test_every_block_is_tested() -> None:
    assert set(BLOCKS) == {"Backlog 1", "Alerts 1", "Scale by the backlog 1"}


def names_in(expression: str) -> set[str]:
    """Return the names of the metrics in a PromQL expression."""
    without_labels = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without) \([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:job:)?faststream\w+(?::total)?", without_labels))


@pytest.fixture
async def metrics(shared_nats: NatsServer) -> Scrape:
    """Scrape the metrics of a service that has everything which can be measured."""
    registry = CollectorRegistry()
    broker = NatsBroker(shared_nats.url, middlewares=[NatsPrometheusMiddleware(registry=registry)])

    @broker.subscriber("monitored", queue="workers")
    async def process(item: str) -> None: ...

    app = AsgiFastStream(
        broker, checks=[HealthCheck("database", list)], metrics_path="/metrics", metrics_registry=registry
    )
    async with app:
        await broker.publish("tea", "monitored")
        return await scrape(app, "/metrics")


# The alerts


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    if MISSING:  # pragma: no cover (installed where skips are forbidden)
        pytest.skip(MISSING)
    path = tmp_path / "rules.yml"
    groups = [*yaml.safe_load(RULES)["groups"], *yaml.safe_load(ALERTS)["groups"]]
    path.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    return path


def test_promtool_accepts_the_rules(rules: Path) -> None:
    assert "11 rules found" in promtool("check", "rules", rules)


def test_the_alerts_use_metrics_that_exist(metrics: Scrape) -> None:
    names = {name for group in (RULES, ALERTS) for rule in rules_of(group) for name in names_in(rule["expr"])}
    assert len(names) > 8
    assert names - metrics.names == {TOTAL}


def rules_of(text: str) -> Iterator[dict[str, str]]:
    for group in yaml.safe_load(text)["groups"]:
        yield from group["rules"]


def constant(series: str, value: str) -> dict[str, str]:
    return {"series": f"{PREFIX}{series}", "values": f"{value}x120"}


HEALTHY = [
    constant(f"ready{{{BROKER}}}", "1"),
    constant(f"broker_up{{{BROKER}}}", "1"),
    constant(f"broker_restarts_total{{{BROKER}}}", "3"),
    constant(f"subscriber_up{{{SUBSCRIBER}}}", "1"),
    constant(f"subscriber_oldest_message_seconds{{{SUBSCRIBER}}}", "0"),
    constant(f"subscriber_dropped_total{{{SUBSCRIBER}}}", "0"),
    constant(f'subscriber_backlog{{{SUBSCRIBER}, shared="true"}}', "5"),
    constant('check_up{check="database", instance="a", job="orders"}', "1"),
]


@pytest.mark.parametrize(
    ("series", "values", "alert"),
    [
        pytest.param(None, None, None, id="healthy"),
        pytest.param("ready", "0x120", "NotReady", id="not ready"),
        pytest.param("broker_up", "0x120", "BrokerDown", id="down"),
        pytest.param("broker_restarts_total", "3+1x120", "BrokerRestarts", id="restarts"),
        # Whatever the fault is: a consumer that is paused on the server, or that was deleted.
        pytest.param("subscriber_up", "0x120", "SubscriberDoesNotConsume", id="subscriber"),
        pytest.param("subscriber_up", "_x120", None, id="paused by the application"),
        pytest.param("check_up", "0x120", "HealthCheckFails", id="check"),
        pytest.param("subscriber_oldest_message_seconds", "0+60x120", "HandlerStuck", id="handler"),
        pytest.param("subscriber_dropped_total", "0+1x120", "MessagesDropped", id="dropped"),
        pytest.param("subscriber_backlog", "900+50x120", "BacklogGrows", id="a backlog that grows"),
        pytest.param("subscriber_backlog", "9000-50x120", None, id="a backlog that shrinks"),
    ],
)
def test_an_alert_fires_for_each_fault(
    rules: Path, series: str | None, values: str | None, alert: str | None
) -> None:
    inputs = [
        {**each, "values": values} if series and each["series"].startswith(f"{PREFIX}{series}{{") else each
        for each in HEALTHY
    ]
    alerts = {rule["alert"] for rule in rules_of(ALERTS)}
    test = {
        "interval": "1m",
        "input_series": inputs,
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "1h",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts if name == alert
                ],
            }
        ],
    }
    path = rules.with_name("test.yml")
    path.write_text(json.dumps({"rule_files": [rules.name], "tests": [test]}), encoding="utf-8")
    promtool("test", "rules", path)


def test_the_total_is_the_maximum_of_a_shared_backlog_and_the_sum_of_others(rules: Path) -> None:
    inputs = [
        {
            "series": f'{PREFIX}subscriber_backlog{{job="j", broker="B 1", instance="{instance}", {rest}}}',
            "values": value,
        }
        for instance, value, rest in (
            ("a", "7", 'subscriber="s", shared="true"'),
            ("b", "8", 'subscriber="s", shared="true"'),
            ("a", "1", 'subscriber="k", shared="false"'),
            ("b", "2", 'subscriber="k", shared="false"'),
        )
    ]
    expected = [
        {"labels": f'{TOTAL}{{broker="B 1", job="j", subscriber="{subscriber}"}}', "value": value}
        for subscriber, value in (("s", 8), ("k", 3))
    ]
    test = {
        "interval": "1m",
        "input_series": inputs,
        "promql_expr_test": [{"expr": TOTAL, "eval_time": "0m", "exp_samples": expected}],
    }
    path = rules.with_name("test.yml")
    path.write_text(json.dumps({"rule_files": [rules.name], "tests": [test]}), encoding="utf-8")
    promtool("test", "rules", path)


# The dashboard


def targets() -> list[dict[str, Any]]:
    return [target for panel in DASHBOARD["panels"] for target in panel["targets"]]


def assert_contains(whole: Any, part: Any, path: str = "") -> None:
    """Check that a JSON value contains another one.

    Grafana's models add what is missing, and drop what they do not know.
    """
    if isinstance(part, dict):
        for key, value in part.items():
            assert key in whole, f"{path}.{key}"
            assert_contains(whole[key], value, f"{path}.{key}")
    elif isinstance(part, list):
        assert len(whole) == len(part), path
        for number, (one, other) in enumerate(zip(whole, part, strict=True)):
            assert_contains(one, other, f"{path}[{number}]")
    else:
        assert whole == part, path


def test_the_dashboard_matches_the_models_of_grafana() -> None:
    register_default_plugins()
    parsed = json.loads(json.dumps(Dashboard.from_json(DASHBOARD), cls=JSONEncoder))
    assert_contains(parsed, DASHBOARD)
    with pytest.raises(AssertionError, match="titel"):
        assert_contains(parsed, {**DASHBOARD, "titel": "Mistaken"})


def test_the_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in panels)
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))


def test_the_panels_use_metrics_that_exist(metrics: Scrape) -> None:
    queries = [target["expr"] for target in targets()]
    queries.append(DASHBOARD["templating"]["list"][1]["query"]["query"])
    for query in queries:
        names = names_in(query)
        assert names
        assert names <= metrics.names
    shown = {name for query in queries for name in names_in(query) if name.startswith(PREFIX)}
    described = {name for name in metrics.names if name.startswith(PREFIX)}
    ignored = ("_created", "_count", "_sum")
    assert shown == {name for name in described if not name.endswith(ignored)}


def test_promtool_accepts_the_queries(rules: Path) -> None:
    queries = [target["expr"].replace("$__rate_interval", "5m").replace("$job", ".+") for target in targets()]
    groups = [
        {
            "name": "queries",
            "rules": [{"record": f"query{number}", "expr": each} for number, each in enumerate(queries)],
        }
    ]
    rules.write_text(json.dumps({"groups": groups}), encoding="utf-8")
    assert f"{len(queries)} rules found" in promtool("check", "rules", rules)


# The autoscalers


def test_the_horizontal_pod_autoscaler_matches_the_schema() -> None:
    version = ".".join(kubernetes_validate.latest_version().split(".")[:2])
    assert kubernetes_validate.validate(MANIFESTS["hpa"], version, strict=True) == version


def test_the_autoscalers_scale_the_deployment_by_the_same_backlog() -> None:
    keda, hpa = (MANIFESTS[name]["spec"] for name in ("keda", "hpa"))
    name = DEPLOYMENT["metadata"]["name"]
    assert keda["scaleTargetRef"]["name"] == hpa["scaleTargetRef"]["name"] == name
    assert keda["minReplicaCount"] == hpa["minReplicas"] == DEPLOYMENT["spec"]["replicas"]
    assert keda["maxReplicaCount"] == hpa["maxReplicas"]
    [trigger], [metric] = keda["triggers"], hpa["metrics"]
    # KEDA takes texts only.
    assert {type(value) for value in trigger["metadata"].values()} == {str}
    assert names_in(trigger["metadata"]["query"]) == {TOTAL}
    assert trigger["metadata"]["threshold"] == metric["external"]["target"]["averageValue"]
    labels = metric["external"]["metric"]["selector"]["matchLabels"]
    assert labels == {"job": name, "subscriber": "process"}
    for label, value in labels.items():
        assert f'{label}="{value}"' in trigger["metadata"]["query"]
    main = (ROOT / "examples/kubernetes/main.py").read_text(encoding="utf-8")
    assert f"async def {labels['subscriber']}(" in main
    [rule] = yaml.safe_load(BLOCKS["Scale by the backlog 1"])["externalRules"]
    assert rule["seriesQuery"] == TOTAL
    assert rule["name"]["as"] == metric["external"]["metric"]["name"]
