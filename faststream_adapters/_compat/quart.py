"""The end of an app context of Quart whose teardown functions have run already."""

from quart.ctx import AppContext
from quart.globals import _cv_app
from quart.signals import appcontext_popped


async def pop_torn_down(context: AppContext) -> None:
    """End an app context without running the teardown functions, as `AppContext.pop` would."""
    _cv_app.reset(context._cv_tokens.pop())
    await appcontext_popped.send_async(
        context.app,
        _sync_wrapper=context.app.ensure_async,  # type: ignore[arg-type]  # as in Quart
    )
