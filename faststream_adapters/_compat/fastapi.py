"""FastAPI's private names."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import fastapi
from fastapi import params
from fastapi._compat import field_annotation_is_scalar
from fastapi.routing import _merge_lifespan_context
from faststream.exceptions import SetupError


class Declaration(NamedTuple):
    """What `fastapi.Depends` or `fastapi.Security` declares.

    Args:
        call: The dependency; None stands for the class in the annotation.
        use_cache: Whether one value is shared by everything that depends on it.
        scope: `function` or `request` for the time of the clean-up, or None for FastAPI's default.
        scopes: OAuth2 scopes.
        limit: Returns the semaphore that limits concurrent calls in the running event loop; None without one.
    """

    call: Callable[..., Any] | None
    use_cache: bool
    scope: str | None
    scopes: tuple[str, ...]
    limit: Callable[[], AbstractAsyncContextManager[Any]] | None


def read_declaration(mark: params.Depends) -> Declaration:
    """Return what a mark declares.

    Raises:
        SetupError: The installed FastAPI stores it otherwise.
    """
    try:
        # Older releases of FastAPI have no `max_concurrency`.
        limited = getattr(mark, "max_concurrency", None) is not None
        concurrency: Any = mark._concurrency if limited else None
        return Declaration(
            mark.dependency,
            mark.use_cache,
            mark.scope,
            tuple(mark.scopes or ()) if isinstance(mark, params.Security) else (),
            concurrency.get_semaphore if limited else None,
        )
    except AttributeError as error:
        msg = (
            f"FastAPI {fastapi.__version__} is not supported: {type(mark).__name__} has changed ({error}). "
            "Install another version of FastAPI, or a newer faststream-adapters."
        )
        raise SetupError(msg) from error


def is_scalar(annotation: Any) -> bool:
    """Return whether FastAPI takes a parameter from the query, and not from the body."""
    return field_annotation_is_scalar(annotation)


def lifespans_of(app: fastapi.FastAPI) -> Iterator[Any]:
    """Yield the application's own lifespan and those of the routers that it includes."""
    pending: list[Any] = [app.router.lifespan_context]
    while pending:
        lifespan = pending.pop()
        merged = inspect.unwrap(lifespan)
        if getattr(merged, "__qualname__", "").startswith(f"{_merge_lifespan_context.__qualname__}."):
            parts = inspect.getclosurevars(merged).nonlocals
            pending += [parts["nested_context"], parts["original_context"]]
        else:
            yield lifespan
