"""Objects that exist already are left alone while many others are created."""

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from faststream_adapters._utils.garbage import existing_objects_frozen

FEW = 1000
"""Python itself may freeze some objects as it starts."""


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    assert gc.get_freeze_count() < FEW
    yield
    gc.unfreeze()


def test_objects_are_frozen_in_the_block_only() -> None:
    with suppress(ZeroDivisionError), existing_objects_frozen():
        assert gc.get_freeze_count() > FEW
        raise ZeroDivisionError
    assert gc.get_freeze_count() == 0


def test_what_the_application_has_frozen_stays_frozen() -> None:
    gc.freeze()
    with existing_objects_frozen():
        pass
    assert gc.get_freeze_count() > FEW
