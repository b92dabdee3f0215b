"""A start that fails shows no secret, wherever the client accepts one."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from traceback import format_exception
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from faststream_adapters import BrokerLifespan, make_metrics_asgi, make_readiness_asgi
from faststream_adapters._utils.errors import BrokerStartError
from faststream_adapters._utils.redaction import related
from tests.harness.asgi_calls import http_scope, request
from tests.harness.secrets import POSITIONS, SECRETS, UNESCAPED, shown_part
from tests.harness.servers import hold_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def refused() -> Iterator[str]:
    """Return an address that refuses connections."""
    port, held = hold_port()
    with held or nullcontext():
        yield f"127.0.0.1:{port}"


async def failed_start(broker: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the failed start of a broker raises and logs, and what its endpoints send."""
    caplog.set_level(logging.DEBUG)
    lifespan = BrokerLifespan(broker, startup_timeout=0.3)
    with pytest.raises(BrokerStartError) as failed:
        await lifespan.enter()
    outputs = [str(failed.value)]
    for error in related(failed.value):
        outputs += [*format_exception(error, chain=False), str(error), repr(error)]
    for endpoint in (make_readiness_asgi(lifespan, details=True), make_metrics_asgi(targets=[lifespan])):
        outputs.append((await request(endpoint, http_scope())).body.decode())
    # What clients log is not ours to change: aio-pika writes the user, but not the password.
    own = [record for record in caplog.records if record.name.startswith("faststream")]
    return [*outputs, *(record.getMessage() for record in own)]


@pytest.mark.parametrize("make", POSITIONS.values(), ids=POSITIONS)
@settings(
    max_examples=3,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(secret=SECRETS)
@pytest.mark.full
def test_a_start_that_fails_shows_the_host_and_no_secret(
    make: Callable[[str, str], Any], refused: str, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    outputs = asyncio.run(failed_start(make(secret, refused), caplog))
    assert refused in outputs[0]
    for output in outputs:
        assert shown_part(secret, output) is None


@pytest.mark.parametrize("secret", ["Hunter2abc/defghi", "Hunter2abc?defghi", "Hunter2abc#defghi"])
@pytest.mark.parametrize("make", UNESCAPED.values(), ids=UNESCAPED)
async def test_the_beginning_of_an_unescaped_password_is_not_shown(
    make: Callable[[str, str], Any], refused: str, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    outputs = await failed_start(make(secret, refused), caplog)
    assert refused in outputs[0]
    for output in outputs:
        assert shown_part(secret, output) is None
