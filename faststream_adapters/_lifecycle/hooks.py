"""The lifespan and the hooks of a FastStream app."""

import inspect
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any

from faststream.exceptions import SetupError

from faststream_adapters._compat import faststream as private
from faststream_adapters._compat.faststream import Application

if TYPE_CHECKING:
    from faststream_adapters._compat.faststream import SettingField

_OWNER = "_faststream_adapters_owner"


def _lifespan_of(app: Application, options: Mapping[str, "SettingField"]) -> AbstractAsyncContextManager[Any]:
    context: object = app.lifespan_context(**options)
    if isinstance(context, AbstractAsyncContextManager):
        return context
    if inspect.iscoroutine(context):
        # Otherwise Python warns that it was never awaited.
        context.close()
    name = getattr(app.lifespan_context, "__name__", "lifespan")
    msg = (
        f"lifespan={name} is no async context manager: pass an `async def` that yields once, and decorate it "
        "with @contextlib.asynccontextmanager."
    )
    raise SetupError(msg)


class AppHooks:
    """Runs the lifespan and the hooks of an app; does nothing without an app.

    Args:
        app: The app.
    """

    def __init__(self, app: Application | None) -> None:
        self._app = app
        self._context = AsyncExitStack()

    async def enter(
        self, owner: object, host: object, options: Mapping[str, "SettingField"], *, hooks_only: bool
    ) -> None:
        """Enter the app's lifespan and run its `on_startup` hooks.

        Args:
            owner: The lifespan that runs the hooks.
            host: The application around it; the app's lifespan and hooks get it as `Context("host")`.
            options: Options for the app's lifespan and hooks.
            hooks_only: Leave out the app's lifespan, which the caller runs.

        Raises:
            SetupError: Another lifespan runs the app, or its own is no context manager.
        """
        if self._app is None:
            return
        if vars(self._app).setdefault(_OWNER, owner) is not owner:
            msg = (
                "This FastStream app is run by another lifespan already, and its hooks must not run twice: "
                "share one BrokerLifespan."
            )
            raise SetupError(msg)
        if host is not None:
            # An app has a context of its own, besides those of its brokers.
            self._app.context.set_global("host", host)
            self._context.callback(self._app.context.reset_global, "host")
        if not hooks_only:
            await self._context.enter_async_context(_lifespan_of(self._app, options))
        await private.on_startup(self._app, options)

    async def after_startup(self) -> None:
        """Run the hooks that follow the brokers' start."""
        if self._app is not None:
            await private.after_startup(self._app)

    async def on_shutdown(self) -> None:
        """Run the hooks that precede the brokers' stop."""
        if self._app is not None:
            await private.on_shutdown(self._app)

    async def after_shutdown(self) -> None:
        """Run the hooks that follow the brokers' stop."""
        if self._app is not None:
            await private.after_shutdown(self._app)

    async def exit(self) -> None:
        """Leave the app's lifespan."""
        if self._app is not None:
            vars(self._app).pop(_OWNER, None)
        context, self._context = self._context, AsyncExitStack()
        await context.aclose()
