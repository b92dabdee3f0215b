"""Unit tests use no server and no network. A test or a fixture that uses one fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.network import forbidden

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Forbid the network in fixtures, including those of the session."""
    with forbidden():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Forbid the network in tests."""
    with forbidden():
        return (yield)
