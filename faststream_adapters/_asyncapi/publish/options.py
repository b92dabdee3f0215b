"""Keywords of the endpoint that publishes."""

from typing import Annotated

from faststream_adapters._asgi.endpoint import SchemaKeywords
from faststream_adapters._utils.calls import call_problem
from faststream_adapters._utils.options import Option, documented, seconds

from .guard import Authorize

__all__ = ("AUTHORIZE", "PublishKeywords")

_MAX_SECONDS = 60 * 60


def _check_authorize(name: str, value: object) -> str | None:
    if value is None:
        return None
    return call_problem(name, value, object(), how="with the request alone") or None


AUTHORIZE = Option(
    None,
    "a function, async or not, that gets the `Request` and returns True if it may open the page and publish; "
    "required",
    _check_authorize,
)


@documented
class PublishKeywords(SchemaKeywords, total=False):
    """Keywords of `make_publish_asgi`."""

    authorize: Annotated[Authorize | None, AUTHORIZE]
    timeout: Annotated[
        float,
        Option(
            5.0,
            "seconds that the broker may take for a message, and a subscriber for its reply",
            seconds(above=0, maximum=_MAX_SECONDS),
        ),
    ]
