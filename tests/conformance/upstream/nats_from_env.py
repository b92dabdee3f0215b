"""Replaces `faststream.nats` in the examples, so that they connect to the server of the test."""

import os
from typing import Any

import faststream.nats


class NatsBroker(faststream.nats.NatsBroker):
    """FastStream's broker with another default address."""

    def __init__(self, servers: str = os.environ.get("NATS_URL", ""), **options: Any) -> None:
        super().__init__(servers, **options)
