"""What an answer of the metrics endpoint says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.support import client

if TYPE_CHECKING:
    from faststream.asgi.types import ASGIApp

Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """The samples of one answer.

    Args:
        text: The answer.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        samples = [
            (sample.name, frozenset(sample.labels.items()), sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]
        self._values = {(name, labels): value for name, labels, value in samples}
        # A series that is there twice makes Prometheus refuse all of them.
        assert len(self._values) == len(samples)

    def __call__(self, metric: str, **labels: str) -> float | None:
        """Return the value of a series, if it is there."""
        return self._values.get((metric, frozenset(labels.items())))

    def ours(self, metric: str, broker: str = "NatsBroker 1") -> float | None:
        """Return what is said of a broker."""
        return self(f"faststream_adapters_broker_{metric}", broker=broker)

    def total(self, metric: str) -> float:
        """Return the sum over all series of this name."""
        return sum(value for (name, _), value in self._values.items() if name == metric)

    def labels(self, name: str) -> set[str]:
        """Return the values that a label has anywhere."""
        return {value for _, labels in self._values for label, value in labels if label == name}

    @property
    def busy(self) -> set[str]:
        """The ids of the processes with a message in a handler."""
        return {
            dict(labels)["pid"]
            for (name, labels), value in self._values.items()
            if name == "faststream_received_messages_in_process" and value
        }

    @property
    def states(self) -> dict[str, float]:
        """How many processes are in which state; without the states that none is in."""
        return {
            dict(labels)["state"]: value
            for (name, labels), value in self._values.items()
            if name == "faststream_adapters_lifecycle_state" and value
        }


async def scrape(app: ASGIApp, path: str = "/") -> Scrape:
    """Ask an endpoint in this process."""
    async with client(app) as http:
        answer = await http.get(path)
    assert answer.status_code == 200
    return Scrape(answer.text)
