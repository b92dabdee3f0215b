"""`python -m faststream_adapters.fastapi run` and `info`."""

from importlib import import_module
from inspect import isfunction
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from faststream_adapters._asgi.lifespan_protocol import drive_lifespan, lifespan_scope
from faststream_adapters._compat.fastapi import lifespans_of
from faststream_adapters._hosting.commands import broker_commands
from faststream_adapters._hosting.middleware import FastStreamMiddleware
from faststream_adapters._lifecycle.lifespan import BrokerLifespan
from faststream_adapters._utils.extras import require

if TYPE_CHECKING:
    from click import Context, Group, Parameter

_FACTORY = f"{__name__}.factory"


def application_commands() -> "Group":
    """Return the commands, each of which takes an application.

    Raises:
        ImportError: click is not installed.
    """
    click = require("click", "server")

    def app() -> Any:
        return click.get_current_context().obj

    group = broker_commands(lambda: drive_lifespan(app(), lifespan_scope()), lambda: broker_lifespans(app()))
    argument = click.Argument(["app"], metavar="MODULE:APP", callback=_load, expose_value=False)
    # Eager, so that it is known when the application is loaded.
    factory = click.Option(
        ["--factory"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note_factory,
        help="APP is a function that returns the application.",
    )
    for command in group.commands.values():
        command.params[:0] = argument, factory
    return group


def broker_lifespans(app: Any) -> list[BrokerLifespan]:
    """Return the lifespans that an application runs, without starting it.

    Args:
        app: A FastAPI application, perhaps inside middleware of this package.
    """
    found: dict[BrokerLifespan, None] = {}
    while isinstance(app, FastStreamMiddleware):
        found[app.broker_lifespan] = None
        app = app.app
    for lifespan in lifespans_of(app):
        # That of a FastStreamRouter is a method, and a BrokerLifespan can be the application's own.
        owner = getattr(lifespan, "__self__", lifespan)
        if isinstance(brokers := getattr(owner, "broker_lifespan", None), BrokerLifespan):
            found[brokers] = None
    return [*found]


def _note_factory(context: "Context", parameter: "Parameter", value: bool) -> None:  # noqa: ARG001, FBT001 (the signature of a callback)
    context.meta[_FACTORY] = value


def _load(context: "Context", parameter: "Parameter", value: str) -> None:  # noqa: ARG001 (the signature of a callback)
    """Import the application and make it the object of the command."""
    click = require("click", "server")
    module, _, name = value.partition(":")
    try:
        app = attrgetter(name)(import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"{value!r} cannot be imported: {error}. Write it as main:app for the object app in main.py."
        raise click.BadParameter(msg) from error
    if context.meta[_FACTORY]:
        app = app()
    host = app.host if isinstance(app, FastStreamMiddleware) else app
    if not isinstance(host, FastAPI):
        msg = f"{value} is not a FastAPI application but an object of the type {type(host).__name__}."
        if isfunction(host):
            msg += " With --factory, it is called and returns the application."
        raise click.BadParameter(msg)
    context.obj = app
