"""What a client says that it can read."""

from functools import lru_cache

from faststream.asgi.types import Scope


def header(scope: Scope, name: bytes) -> str:
    """Return a request's header, all lines of it joined.

    Args:
        scope: The HTTP scope.
        name: The name in lower case.
    """
    # Servers hand over all names in lower case, so says ASGI.
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1") if values else ""


# Every request asks, and clients say one of a few things.
@lru_cache(maxsize=32)
def coding(accepted: str, available: tuple[str, ...]) -> str:
    """Return the coding to send a body in, or `identity`.

    Args:
        accepted: The `Accept-Encoding` header.
        available: What can be sent, the best one first.

    Source: RFC 9110, section 12.5.3 (Accept-Encoding).
    """
    weights: dict[str, float] = {}
    for item in accepted.lower().split(","):
        name, _, parameter = item.partition(";")
        weights[name.strip()] = _weight(parameter)
    others = weights.get("*", 0.0)
    best = max(available, key=lambda name: weights.get(name, others))
    weight = weights.get(best, others)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else "identity"


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        # The body as it is, is right for everyone.
        return 0.0
