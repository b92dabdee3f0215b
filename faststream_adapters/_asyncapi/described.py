"""Describe the messages of brokers one by one, for FastStream's generator of documents.

FastStream describes each message by the JSON Schema of its type, and puts the schemas of all messages
together by the names of their models. This module makes these schemas: a message whose type has none gets a
placeholder, types that pydantic does not know are described by msgspec, and different models of one name get
different names. So do channels, of which FastStream would only keep the last.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy, deepcopy
from functools import partial
from inspect import Parameter, isclass, unwrap
from itertools import chain, count
from typing import Any, NamedTuple, get_args, get_type_hints

from fast_depends.utils import get_typed_signature, is_async_gen_callable, is_gen_callable
from faststream.specification import AsyncAPI
from faststream.specification.asyncapi.message import parse_handler_params
from faststream.specification.asyncapi.utils import to_camelcase
from faststream.specification.base import SpecificationFactory
from pydantic import BaseModel, create_model

from faststream_adapters._compat.faststream import build_handlers, with_payloads
from faststream_adapters._utils.threads import call_with_deep_stack
from faststream_adapters._utils.tracebacks import call_with_names, stack_names

from .nodes import mapping, pointer_names, references, rename_references

__all__ = ("Report", "describe")

Report = Callable[[str, Exception], object]
"""Takes the name of a message that cannot be described, and the error."""

_DEFS = "$defs"
_NOT_IN_KEYS = re.compile(r"[^a-zA-Z0-9.\-_]")
_PLACEHOLDER = "This message cannot be described. The log contains the error."


def describe(specification: SpecificationFactory, report: Report) -> SpecificationFactory:
    """Return a copy of the specification with brokers whose messages this module describes.

    Args:
        specification: The specification; one of a class that is not FastStream's is returned itself.
        report: Called for each message that cannot be described, which then has a placeholder.
    """
    if not isinstance(specification, AsyncAPI):
        return specification
    described = copy(specification)
    brokers = [_Broker(number, broker, report) for number, broker in enumerate(specification.brokers)]
    described.brokers = brokers  # type: ignore[assignment]  # has what the generator uses
    endpoints = [endpoint for broker in brokers for endpoint in (*broker.subscribers, *broker.publishers)]
    _separate(endpoints)
    for endpoint in endpoints:
        endpoint.describe_channels()
    _separate_channels(endpoints)
    return described


class _Broker:
    """What the generator uses of a broker."""

    def __init__(self, number: int, broker: Any, report: Report) -> None:
        self.specification = broker.specification
        self.subscribers = [
            _Subscriber(number, each, report) for each in broker.subscribers if _is_included(each)
        ]
        self.publishers = [
            _Publisher(number, each, report) for each in broker.publishers if _is_included(each)
        ]


def _is_included(endpoint: Any) -> bool:
    return bool(endpoint.specification.include_in_schema)


class _Body(NamedTuple):
    """The schema of what a handler receives or returns.

    Args:
        schema: The schema, with those of further models in `$defs`.
        types: The types that it describes.
    """

    schema: dict[str, Any]
    types: list[Any]


class _Endpoint:
    """What the generator uses of a subscriber or publisher.

    Args:
        broker: The number of its broker.
        endpoint: The subscriber or publisher.
        report: Called for each message that cannot be described.

    Attributes:
        bodies: The schemas, one for each handler.
        channels: FastStream's descriptions of the channels, by their keys.
    """

    channels: dict[str, Any]

    def __init__(self, broker: int, endpoint: Any, report: Report) -> None:
        self.broker = broker
        self.specification = endpoint.specification
        self.name: str = endpoint.specification.name
        self._report = report
        self.bodies = [*self._describe(endpoint)]

    def _describe(self, endpoint: Any) -> Iterator[_Body]:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return the channels, as FastStream does."""
        return self.channels

    def describe_channels(self) -> None:
        """Make the channels of the bodies."""
        payloads = [body.schema for body in self.bodies]
        if len(payloads) > 1:
            payloads = [{"oneOf": {payload["title"]: payload for payload in payloads}}]
        described = with_payloads(self.specification, [(payload, "") for payload in payloads])
        self.channels = described.get_schema()

    def rename_channel(self, key: str, new: str) -> None:
        """Give a channel another key, from which those of its operation and its message are made too."""
        self.channels = {new if each == key else each: self.channels[each] for each in self.channels}
        message = self.channels[new].operation.message
        message.title = message.title.replace(key, new, 1)
        if self.specification.config.title_:
            # Of one channel, this is the key of the operation.
            self.specification = copy(self.specification)
            self.specification.config = copy(self.specification.config)
            self.specification.config.title_ = new

    def _attempt(self, title: str, make: Callable[[list[Any]], dict[str, Any]]) -> _Body:
        """Return what a function makes, or a placeholder.

        Args:
            title: The title of a schema that has no other.
            make: Returns the schema, and adds the types that it describes to a list.
        """
        types: list[Any] = []
        call = partial(make, types)
        try:
            try:
                return _Body(call(), types)
            except RecursionError:
                # pydantic takes some twenty frames for a model inside another one.
                return _Body(call_with_deep_stack(partial(call_with_names, stack_names(), call)), types)
        except Exception as error:  # noqa: BLE001 (models of the application can raise anything)
            self._report(self.name, error)
            return _Body({"title": title, "description": _PLACEHOLDER}, types)


class _Subscriber(_Endpoint):
    def _describe(self, endpoint: Any) -> Iterator[_Body]:
        specification = endpoint.specification
        with suppress(Exception):
            # The error is raised again for each handler that lacks a model.
            build_handlers(endpoint)
        calls = [*specification.calls]
        name = specification.config.title_ or specification.call_name
        for call in calls:
            if len(calls) > 1:
                name = to_camelcase(call.name)
            title = f"{name}:Message:Payload"
            yield self._attempt(title, partial(_received, endpoint, call, title))
        if not calls:
            yield _Body({"title": f"{name}:Message:Payload"}, [])


def _received(endpoint: Any, call: Any, title: str, types: list[Any]) -> dict[str, Any]:
    """Return the schema of what a handler receives."""
    if call.dependant is None:
        build_handlers(endpoint)
    dependant = call.dependant
    params = [each for each in dependant.flat_params if each.field_name not in dependant.custom_fields]
    types += [each.field_type for each in params]
    if not params:
        return {"title": "EmptyPayload", "type": "null"}
    if len(params) == 1:
        return _schema_with_models(params[0].field_type, params[0].default_value, title)
    try:
        return {**parse_handler_params(dependant), "title": title}
    except Exception:
        if "msgspec" not in sys.modules:
            raise
        return _object_of(params, title)


class _Publisher(_Endpoint):
    def _describe(self, endpoint: Any) -> Iterator[_Body]:
        specification = endpoint.specification
        title = f"{self.name}:Message:Payload"
        if schema := specification.config.schema_:
            yield self._attempt(title, partial(_sent, lambda: schema, title))
            return
        calls = [*specification.calls]
        for call in calls:
            if len(calls) > 1:
                title = f"{to_camelcase(unwrap(call).__name__)}:Publisher:Message:Payload"
            body = self._attempt(title, partial(_sent, partial(_returned, call), title))
            if body.schema:
                yield body


def _sent(find: Callable[[], Any], title: str, types: list[Any]) -> dict[str, Any]:
    """Return the schema of the type that a function finds, or an empty one if there is no type."""
    kind = find()
    types.append(kind)
    return {} if kind is None or kind is Parameter.empty else _schema_with_models(kind, ..., title)


def _returned(call: Callable[..., Any]) -> Any:
    """Return what a handler returns or yields."""
    _, kind = get_typed_signature(call)
    is_generator = is_gen_callable(call) or is_async_gen_callable(call)
    return next(iter(get_args(kind)), kind) if is_generator else kind


# --- schemas ---


def _schema_with_models(kind: Any, default: Any, title: str) -> dict[str, Any]:
    """Return the schema of a type, with the schemas of its models in `$defs`.

    Args:
        kind: The type.
        default: The default value or pydantic's field; `...` if there is none.
        title: The title for a type that has no name itself.
    """
    schema, models, own_title = _schema_of(kind, default)
    if "$ref" in schema:
        name = pointer_names(schema["$ref"])[-1]
        schema = {**models[name]}
        schema.setdefault("title", name)
        # A model that contains itself is needed there too.
        if not any(name in references(model) for model in models.values()):
            del models[name]
    else:
        schema["title"] = own_title or title
    return {**schema, _DEFS: models} if models else schema


def _schema_of(kind: Any, default: Any) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Return the schema of a type, those of its models, and the title that its author has chosen."""
    try:
        model = create_model("Message", message=(kind, default))
        schema = model.model_json_schema()
        [field] = schema["properties"].values()
        return field, schema.get(_DEFS, {}), model.model_fields["message"].title
    except Exception:
        if (described := _msgspec_schema_of(kind)) is None:
            raise
        return described


def _msgspec_schema_of(kind: Any) -> tuple[dict[str, Any], dict[str, Any], None] | None:
    # Types of an application that has not imported msgspec need not be tried.
    if (msgspec := sys.modules.get("msgspec")) is None:
        return None
    try:
        [schema], models = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    except (TypeError, RecursionError):
        return None
    return {**schema}, models, None


def _object_of(params: Iterable[Any], title: str) -> dict[str, Any]:
    """Return the schema of a message with several fields, each of which is described on its own."""
    properties: dict[str, Any] = {}
    models: dict[str, Any] = {}
    required: list[str] = []
    for param in params:
        properties[param.field_name], more, _ = _schema_of(param.field_type, param.default_value)
        models |= more
        if param.default_value is ...:
            required.append(param.field_name)
    schema = {"properties": properties, "required": required, "title": title, "type": "object"}
    return {**schema, _DEFS: models} if models else schema


# --- names ---


class _Use(NamedTuple):
    """The first use of a model."""

    endpoint: _Endpoint
    body: _Body
    name: str

    def qualified(self) -> str:
        """Return a name with the model's module, or else with the channel's name."""
        classes = [each for each in _classes(self.body.types) if _key_of(each) == self.name]
        modules = {each.__module__ for each in classes if "<locals>" not in each.__qualname__}
        if len(modules) == 1:
            return f"{modules.pop()}.{self.name}"
        handler, separator, rest = self.name.partition(":")
        return f"{self.endpoint.name}{separator}{rest}" if separator else f"{self.endpoint.name}.{handler}"


def _separate(endpoints: list[_Endpoint]) -> None:
    """Rename models that have the same name but different schemas."""
    if not _has_conflicts(endpoints):
        return
    # FastStream keeps endpoints in sets. Their order must not matter for the names.
    ordered = sorted(
        endpoints,
        key=lambda each: (each.name, each.broker, _canonical([body.schema for body in each.bodies])),
    )
    variants: defaultdict[str, dict[str, _Use]] = defaultdict(dict)
    for endpoint in ordered:
        for body in endpoint.bodies:
            for name, content in _contents(body.schema):
                variants[name].setdefault(content, _Use(endpoint, body, name))
    renamed: dict[tuple[str, str], str] = {}
    taken = {*variants}
    for name, uses in variants.items():
        for content, use in uses.items() if len(uses) > 1 else ():
            qualified = use.qualified()
            numbered = (f"{qualified}-{number}" for number in count(2))
            new = next(each for each in chain([qualified], numbered) if each not in taken)
            taken.add(new)
            renamed[name, content] = new
    for endpoint in ordered:
        endpoint.bodies = [_Body(_renamed(schema, renamed), types) for schema, types in endpoint.bodies]


def _separate_channels(endpoints: list[_Endpoint]) -> None:
    """Number channels that have the same key, as those of one handler name or one title have.

    What one broker declares twice in the same way, as for several handlers that publish to one place, is one
    channel.
    """
    used = Counter(_document_key(key) for endpoint in endpoints for key in endpoint.channels)
    same = [each for each in endpoints if any(used[_document_key(key)] > 1 for key in each.channels)]
    # FastStream keeps endpoints in sets. Their order must not matter for the numbers.
    contents = {endpoint: (endpoint.broker, str(endpoint.channels)) for endpoint in same}
    taken, seen = {*used}, set[object]()
    for endpoint in sorted(same, key=lambda each: contents[each]):
        for key in [*endpoint.channels]:
            plain, content = _document_key(key), contents[endpoint]
            if (plain, content) in seen:
                del endpoint.channels[key]
            elif plain in seen:
                numbered = (f"{key}{number}" for number in count(2))
                new = next(each for each in numbered if _document_key(each) not in taken)
                taken.add(_document_key(new))
                endpoint.rename_channel(key, new)
            seen |= {plain, (plain, content)}


def _document_key(key: str) -> str:
    """Return the key of a channel in a document of AsyncAPI 3."""
    return key.replace("/", ".")


def _has_conflicts(endpoints: Iterable[_Endpoint]) -> bool:
    schemas: dict[str, str] = {}
    return any(
        schemas.setdefault(name, canonical) != canonical
        for endpoint in endpoints
        for body in endpoint.bodies
        for name, schema in _models(body.schema)
        for canonical in [_canonical(schema)]
    )


def _models(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the names and schemas of the models in a schema, the outermost first."""
    yield body["title"].replace("/", "."), {key: value for key, value in body.items() if key != _DEFS}
    yield from mapping(body.get(_DEFS)).items()


def _canonical(schema: object) -> str:
    return json.dumps(schema, sort_keys=True, default=str)


def _contents(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the names of the models in a schema, the outermost first, and their schemas with those inside.

    Two models are the same if these are equal.
    """
    models = mapping(body.get(_DEFS))
    for name, schema in _models(body):
        reached: dict[str, Any] = {}
        waiting = [*references(schema)]
        while waiting:
            inner = waiting.pop()
            if inner in models and inner not in reached:
                reached[inner] = models[inner]
                waiting += references(models[inner])
        yield name, _canonical([schema, reached])


def _renamed(body: dict[str, Any], renamed: dict[tuple[str, str], str]) -> dict[str, Any]:
    own, *inner = [(name, renamed.get((name, content))) for name, content in _contents(body)]
    names = {name: new for name, new in inner if new}
    models = {name: _titled(schema, names.get(name)) for name, schema in mapping(body.get(_DEFS)).items()}
    copied: dict[str, Any] = deepcopy({**_titled(body, own[1]), _DEFS: models})
    rename_references(copied, {_DEFS: names})
    copied[_DEFS] = {names.get(name, name): schema for name, schema in copied[_DEFS].items()}
    return copied


def _titled(schema: dict[str, Any], title: str | None) -> dict[str, Any]:
    # FastStream takes the name of a schema from its title.
    return schema if title is None else {**schema, "title": title}


def _key_of(model: type) -> str:
    """Return the name that pydantic and msgspec give to the schema of a model."""
    return _NOT_IN_KEYS.sub("_", model.__name__)


def _classes(types: Iterable[Any]) -> Iterator[type]:
    """Yield the classes in annotations, and in those of their fields."""
    waiting, seen = [*types], set[int]()
    while waiting:
        kind = waiting.pop()
        if id(kind) in seen:
            continue
        seen.add(id(kind))
        waiting += get_args(kind)
        if not isclass(kind):
            continue
        yield kind
        if issubclass(kind, BaseModel):
            waiting += [field.annotation for field in kind.model_fields.values()]
        else:
            # Names in postponed annotations may be unknown by now.
            with suppress(Exception):
                waiting += get_type_hints(kind).values()
