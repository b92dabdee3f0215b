"""The broker."""

from typing import Any

from faststream.nats import NatsBroker


class AcmeBroker(NatsBroker):
    """NATS whose client reconnects at once."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, reconnect_time_wait=0, max_reconnect_attempts=-1, **options)
