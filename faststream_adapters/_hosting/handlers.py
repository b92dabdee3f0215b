"""Handlers of a broker that get some of their arguments from the host."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial, update_wrapper
from typing import Any, ClassVar

from faststream.exceptions import SetupError

from faststream_adapters._compat.faststream import Broker, call_for_messages, injects

from .signatures import AnyCallable, name_of, signature_of

Bind = Callable[[Mapping[str, Any]], Callable[[], Any]]
"""Return the call of a handler with the arguments that the host passes."""


class HostHandler(ABC):
    """A handler of a broker that gets some of its arguments from the host.

    FastStream sees a function without these parameters, so that they are not fields of the message.

    Args:
        broker: The broker.
        call: The handler.
    """

    host: ClassVar[str]
    """The name of the host."""

    def __init__(self, broker: Broker, call: AnyCallable) -> None:
        self._broker = broker
        self._call = call
        self.owner = f"subscriber {name_of(call)!r}"
        """The handler in words."""
        self.signature = signature_of(call)
        parameters = self.signature.parameters.values()
        self.passed = {each.name: each for each in parameters if self.is_passed(each)}
        """The parameters that the host passes."""
        self._positional = [
            each.name
            for each in parameters
            if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
        ]
        self._by_name = not any(each.kind is each.POSITIONAL_ONLY for each in parameters)
        self.is_async = inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)

    @abstractmethod
    def is_passed(self, parameter: inspect.Parameter) -> bool:
        """Return whether the host passes a parameter."""

    @abstractmethod
    async def handle(self, bind: Bind, names: Collection[str] | None) -> Any:
        """Call the handler with the arguments of the application that runs the broker.

        Args:
            bind: Returns the call.
            names: The parameters that need a value; None for all of them, and for a message.

        Raises:
            SetupError: No application runs the broker.
        """

    @property
    def needs_app(self) -> bool:
        """Whether the handler cannot run without an application."""
        return bool(self.passed)

    def no_app_error(self) -> SetupError:
        """Return the error for a message or a direct call without an application."""
        return SetupError(
            f"The {self.owner} needs its {self.host} application, but none runs its broker: run the "
            "application's lifespan. In tests, app_client of faststream_adapters.testing does."
        )

    def decorated(self) -> AnyCallable:
        """Return the function that FastStream calls instead of the handler."""
        direct = self._direct_async if self.is_async else self._direct_sync
        if not self.needs_app:
            if inspect.signature(self._call) == self.signature or inspect.isroutine(self._call):
                return self._call
            # FastStream could not evaluate the annotations of an instance's `__call__`.
            return self._with_signature(direct)
        for_messages = self._with_signature(self._on_message)
        if not injects(self._broker):
            return for_messages
        function = self._with_signature(direct)
        call_for_messages(function, for_messages)
        return function

    def _with_signature(self, method: AnyCallable) -> AnyCallable:
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await method(*args, **kwargs)

        def call_sync(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        function = call_async if inspect.iscoroutinefunction(method) else call_sync
        update_wrapper(function, self._call, updated=())
        parameters = [each for name, each in self.signature.parameters.items() if name not in self.passed]
        signature = self.signature.replace(parameters=parameters)
        vars(function)["__signature__"] = signature
        function.__annotations__ = {
            each.name: each.annotation for each in parameters if each.annotation is not each.empty
        }
        if signature.return_annotation is not signature.empty:
            function.__annotations__["return"] = signature.return_annotation
        return function

    async def _on_message(self, *args: Any, **kwargs: Any) -> Any:
        """Handle a message, whose arguments are those that FastStream sees."""
        return await self.handle(partial(self._call_for_message, args, kwargs), None)

    def _call_for_message(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], passed: Mapping[str, Any]
    ) -> Callable[[], Any]:
        positional, named = self._bind(args, {**kwargs, **passed})
        return partial(self._call, *positional, **named)

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Return the arguments of the handler.

        Args:
            args: Arguments without those that the host passes.
            kwargs: Arguments by name, with all that the host passes.
        """
        if self._by_name and not args:
            return args, kwargs
        left, positional = list(args), []
        for name in self._positional:
            if name in kwargs:
                positional.append(kwargs.pop(name))
            elif left:
                positional.append(left.pop(0))
            else:
                break
        return (*positional, *left), kwargs

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments of a direct call by name."""
        return self.signature.bind_partial(*args, **kwargs).arguments

    def missing(self, given: Mapping[str, Any]) -> list[str]:
        """Return the parameters that the host has to pass in a direct call."""
        return [name for name in self.passed if name not in given]

    async def _direct_async(self, *args: Any, **kwargs: Any) -> Any:
        """Call the handler; given values take precedence over those of the application."""
        given = self.given(args, kwargs)
        if missing := self.missing(given):
            return await self.handle(lambda passed: self._bound({**given, **passed}), missing)
        return await self._bound(given)()

    def _direct_sync(self, *args: Any, **kwargs: Any) -> Any:
        given = self.given(args, kwargs)
        if missing := self.missing(given):
            msg = (
                f"A direct call of the {self.owner} needs values for {', '.join(missing)}: only an async "
                f"function gets them from {self.host} in a direct call."
            )
            raise TypeError(msg)
        return self._bound(given)()

    def _bound(self, arguments: Mapping[str, Any]) -> Callable[[], Any]:
        bound = inspect.BoundArguments(self.signature, dict(arguments))
        return partial(self._call, *bound.args, **bound.kwargs)
