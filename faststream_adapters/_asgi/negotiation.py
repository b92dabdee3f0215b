"""Request headers and the negotiation of the content encoding."""

from functools import lru_cache

from faststream.asgi.types import Scope


def header(scope: Scope, name: bytes) -> str:
    """Return a request header; repeated headers are joined with commas.

    Args:
        scope: The HTTP scope, in which servers pass all header names in lower case.
        name: The lower-case name.
    """
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1") if values else ""


# Cached because clients send few distinct headers, with every request.
@lru_cache(maxsize=32)
def negotiate_encoding(accepted: str, available: tuple[str, ...]) -> str:
    """Return the content encoding for a response, or `identity`.

    Args:
        accepted: The `Accept-Encoding` header.
        available: The encodings that can be produced, in order of preference.

    Source: RFC 9110, section 12.5.3 (Accept-Encoding).
    """
    weights: dict[str, float] = {}
    for item in accepted.lower().split(","):
        name, _, parameter = item.partition(";")
        weights[name.strip()] = _weight(parameter)
    default = weights.get("*", 0.0)
    best = max(available, key=lambda name: weights.get(name, default))
    weight = weights.get(best, default)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else "identity"


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        # An invalid weight rules the encoding out: every client can read `identity`.
        return 0.0
