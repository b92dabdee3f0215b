"""FastStream's private names for declared channels: their names, their messages, and whether they reply."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fast_depends.core import CallModel, build_call_model
from fast_depends.library.serializer import OptionItem, Serializer
from fast_depends.pydantic import PydanticSerializer
from faststream._internal.endpoint.subscriber import SubscriberUsecase
from faststream.response import Response

from .faststream import Broker

__all__ = ("Declared", "channel_names", "declared_messages", "declares_reply", "new_correlation_id")

_NO_TYPE = (None, type(None), inspect.Parameter.empty)


class Declared(NamedTuple):
    """A message that a handler takes or that a publisher sends.

    Args:
        handler: The name of the handler, or an empty string.
        parameters: The parameters that the fields of the message are passed to; none if it is not read.
        validate: Validates the arguments by name, as FastStream does for each message.
        unpacked: Whether the fields of the message are passed, and not the message itself.
        items: Whether it declares a batch, of which the message is one item.
    """

    handler: str
    parameters: Sequence[OptionItem]
    validate: Serializer | None
    unpacked: bool = False
    items: bool = False


def channel_names(endpoint: Any) -> dict[str, str]:
    """Return the names of the channels of a subscriber or a publisher in the AsyncAPI document.

    They are made without the schemas, which FastStream cannot make for every type.

    Returns:
        The address of each by its name; nothing for what the document leaves out.
    """
    specification = endpoint.specification
    if not specification.include_in_schema:
        return {}
    address = _address(specification)
    if not isinstance(endpoint, SubscriberUsecase):
        return {specification.name: address}
    labels = specification.channel_labels
    split = len(labels) > 1
    return {
        specification._channel_key(label, split=split): label if split else address or label
        for label in labels
    }


def _address(specification: Any) -> str:
    """Return the address of an endpoint; an empty string if it has none, or several."""
    found = (getattr(specification, name, None) for name in ("address", "topic", "subject"))
    return next((str(getattr(each, "template", each)) for each in found if each), "")


def declared_messages(endpoint: Any) -> list[Declared]:
    """Return the messages that a subscriber's handlers take, or that a publisher sends.

    Returns:
        None of them if nothing is declared, so that every message is valid.
    """
    if isinstance(endpoint, SubscriberUsecase):
        items = getattr(endpoint._decoder, "__name__", "") == "decode_batch"
        return [_taken(call.name, call.dependant, items=items) for call in _built(endpoint).calls]
    return _sent(endpoint)


def _built(subscriber: Any) -> Any:
    if any(call.dependant is None for call in subscriber.calls):
        # It has not been started: in this process it may never be.
        subscriber._build_fastdepends_model()
    return subscriber


def _taken(handler: str, model: CallModel, *, items: bool) -> Declared:
    parameters = model.flat_params
    several = len(parameters) > 1
    unpacked = several or any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters)
    validate = _serializer(model.serializer_cls, parameters)
    return Declared(handler, parameters, validate, unpacked=unpacked, items=items)


def _serializer(serializer: Any, parameters: Sequence[OptionItem]) -> Serializer | None:
    if not parameters:
        return None
    # An application that has switched its own validation off has declared types nevertheless.
    make = serializer or PydanticSerializer(use_fastdepends_errors=False)
    made: Serializer = make(name="Message", options=list(parameters), response_type=inspect.Parameter.empty)
    return made


def _sent(publisher: Any) -> list[Declared]:
    specification = publisher.specification
    config = specification._outer_config.fd_config
    types = [("", specification.config.schema_)] if specification.config.schema_ else []
    for call in () if types else specification.calls:
        returned = _returned(call, config)
        if returned not in _NO_TYPE and not _is_response(returned):
            types.append((getattr(inspect.unwrap(call), "__name__", ""), returned))
    signature = inspect.signature(type(publisher).publish)
    items = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in signature.parameters.values())
    declared = []
    for name, kind in types:
        parameters = [OptionItem("message", kind)]
        declared.append(Declared(name, parameters, _serializer(config._serializer, parameters), items=items))
    return declared


def _returned(call: Callable[..., Any], config: Any) -> Any:
    model = build_call_model(call, dependency_provider=config.provider, serializer_cls=PydanticSerializer())
    return _response_type(model)


def _response_type(model: CallModel) -> Any:
    options: Mapping[str, OptionItem] = model.serializer.response_option if model.serializer else {}
    return next((option.field_type for option in options.values()), None)


def _is_response(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Response)


def declares_reply(subscriber: Any) -> bool:
    """Return whether a handler of a subscriber declares a result that is not published elsewhere."""
    if subscriber._no_reply:
        return False
    return any(
        not call.handler._publishers and _response_type(call.dependant) not in _NO_TYPE
        for call in _built(subscriber).calls
    )


def new_correlation_id(broker: Broker) -> str:
    """Return an id from the broker's own generator."""
    correlation_id: str = broker.config.broker_config.id_generator()
    return correlation_id
