"""The last changes of a lifespan."""

from datetime import UTC, datetime

from faststream_adapters import HealthChange
from faststream_adapters._lifecycle.history import MAX_CHANGES, MAX_NAMES, History

TIME = datetime(2030, 1, 2, tzinfo=UTC)


def test_changes_that_are_alike_are_one() -> None:
    history = History()
    names = [f"handle_{number:02}" for number in range(30)]
    changes = [HealthChange("subscriber", name, "not_started", "ok", TIME) for name in reversed(names)]
    history.add([HealthChange("broker", "NatsBroker 1", "not_started", "ok", TIME), *changes])
    subscribers, broker = history
    assert (subscribers.names, subscribers.count) == (tuple(names[:MAX_NAMES]), 30)
    assert (broker.kind, broker.names, broker.count) == ("broker", ("NatsBroker 1",), 1)


def test_the_last_changes_are_kept_the_latest_first() -> None:
    history = History()
    for number in range(MAX_CHANGES + 5):
        history.add([HealthChange("check", f"check {number}", "ok", "check_failed", TIME)])
    history.add_state("running", "draining")
    changes = [*history]
    assert len(changes) == MAX_CHANGES
    assert (changes[0].kind, changes[0].names, changes[0].old, changes[0].new) == (
        "lifespan",
        (),
        "running",
        "draining",
    )
    assert changes[1].names == (f"check {MAX_CHANGES + 4}",)
