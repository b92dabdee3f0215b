"""A Prometheus server that scrapes an application."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.harness.servers import HOST, ChildServer

if TYPE_CHECKING:
    from pathlib import Path

MISSING = (
    None
    if shutil.which("prometheus") and shutil.which("promtool")
    else "There is no prometheus on PATH: install the operating system's package of that name."
)
"""Why Prometheus cannot be started on this machine, or None if it can."""


def promtool(*arguments: str | Path, text: str = "") -> str:
    """Run promtool with this input, check that it succeeds, and return its output."""
    done = subprocess.run(
        ["promtool", *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class PrometheusServer(ChildServer):
    """A Prometheus that scrapes one target every second.

    Args:
        port: The port of the target, on this machine.
        path: The path of its metrics.
        rules: A file of alerting rules.
    """

    def __init__(self, port: int, path: str = "/metrics", rules: Path | None = None) -> None:
        super().__init__()
        self._config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)] if rules else [],
            "scrape_configs": [
                {
                    "job_name": "service",
                    "metrics_path": path,
                    "static_configs": [{"targets": [f"{HOST}:{port}"]}],
                }
            ],
        }

    def start(self) -> None:
        """Start Prometheus and wait until it responds to queries."""
        command = [
            "prometheus",
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={HOST}:{self.port}",
        ]
        # JSON is YAML.
        self._spawn(command, files={"prometheus.yml": json.dumps(self._config)})
        self._wait_until(self._ready, 30.0)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the current value of each series of a PromQL expression."""
        result = self._get(f"/api/v1/query?query={quote(expression)}")["data"]["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]

    def target(self) -> dict[str, Any]:
        """Return the status of the target."""
        [target] = self._get("/api/v1/targets")["data"]["activeTargets"]
        return dict(target)

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self._get("/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def _get(self, path: str) -> Any:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10.0)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=1.0)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
