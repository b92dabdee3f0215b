"""The Quart adapter: `QuartFastStream(broker, app=app)`."""

from faststream_adapters._utils.extras import require

require("quart", "quart")

from ._current_broker import current_broker
from ._extension import QuartFastStream

__all__ = ("QuartFastStream", "current_broker")
