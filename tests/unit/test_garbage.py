"""Objects that exist already are left alone while many others are created."""

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from faststream_adapters._utils.garbage import existing_objects_frozen


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    assert gc.get_freeze_count() == 0
    yield
    gc.unfreeze()


def test_objects_are_frozen_in_the_block_only() -> None:
    with suppress(ZeroDivisionError), existing_objects_frozen():
        assert gc.get_freeze_count() > 0
        raise ZeroDivisionError
    assert gc.get_freeze_count() == 0


def test_what_the_application_has_frozen_stays_frozen() -> None:
    gc.freeze()
    with existing_objects_frozen():
        pass
    assert gc.get_freeze_count() > 0


def test_what_the_application_freezes_meanwhile_stays_frozen() -> None:
    with existing_objects_frozen():
        kept = [[number] for number in range(10_000)]
        gc.freeze()
    assert len(kept) == 10_000
    assert gc.get_freeze_count() > 10_000
