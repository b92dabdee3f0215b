"""The FastAPI adapter: `app.include_router(FastStreamRouter(broker))`."""

from faststream_adapters._utils.extras import require

require("fastapi", "fastapi")

from faststream_adapters._hosting.providing import BrokerNotProvidedError

from ._marks import Context, Logger, Message
from ._provide import provide_broker
from ._router import FastStreamRouter

__all__ = ("BrokerNotProvidedError", "Context", "FastStreamRouter", "Logger", "Message", "provide_broker")
