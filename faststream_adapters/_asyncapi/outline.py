"""The operations, messages and models of an AsyncAPI document, the same for versions 2 and 3."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .document import mapping, pointer_names, resolve
from .names import heading_of, model_name, readable

__all__ = ("Message", "Model", "Operation", "Outline", "sequence")

# The titles of messages that FastStream has made from the names of channels and handlers.
_MADE_TITLE = re.compile(r":(?:Subscribe)?Message$")

# The names that FastStream gives to payloads that are no models, such as the parameters of a handler.
_MADE_NAME = re.compile(r":Payload$|:\w+Payload$")

_ADDRESSES = {"nats": "subject", "kafka": "topic", "redis": "channel", "mqtt": "topic"}
"""Where the bindings of a protocol have the address."""


class Model(NamedTuple):
    """A schema with a name that readers know."""

    key: str
    name: str
    schema: Any


@dataclass(eq=False)
class Message:
    """A message, which several operations may have in common."""

    key: str
    name: str
    content: dict[str, Any]
    operations: list["Operation"] = field(default_factory=list)

    @property
    def payload(self) -> Any:
        """The schema of the payload; None if there is none."""
        payload = self.content.get("payload")
        # In AsyncAPI 3, a payload with a schemaFormat wraps the schema.
        return mapping(payload).get("schema") if "schemaFormat" in mapping(payload) else payload


@dataclass(eq=False)
class Operation:
    """An operation from the application's point of view: it sends or receives."""

    key: str
    action: str
    details: dict[str, Any]
    channel_key: str
    channel: dict[str, Any]
    heading: str = ""
    messages: list[Message] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The address of the channel."""
        bindings = mapping(self.channel.get("bindings"))
        # AsyncAPI 2 has it in the bindings only, if the author has chosen a title.
        bound = [mapping(bindings.get(protocol)).get(key) for protocol, key in _ADDRESSES.items()]
        addresses = [address for address in (self.channel.get("address"), *bound) if isinstance(address, str)]
        return addresses[0] if addresses else heading_of(self.channel_key, self.channel, {})


class Outline:
    """What the document describes.

    Args:
        document: The document.
        titles: The titles that authors have chosen, by the keys of their channels.
    """

    def __init__(self, document: dict[str, Any], titles: Mapping[str, str]) -> None:
        self._document = document
        self._titles = titles
        self.components = mapping(document.get("components"))
        self.schemas = mapping(self.components.get("schemas"))
        self._messages: dict[str, Message] = {}
        self.operations = [*self._operations_3(), *self._operations_2()]
        for key, content in mapping(self.components.get("messages")).items():
            self._message(key, mapping(content))
        self.messages = [*self._messages.values()]
        self.models = {
            key: Model(key, self.model_name(key), schema)
            for key, schema in self.schemas.items()
            if not self._is_alias(schema)
        }

    # --- schemas ---

    def model_key(self, schema: object) -> str | None:
        """Return the key of the model that a schema refers to, or None if it does not refer to one."""
        keys: list[str] = []
        while (key := _component(schema)) is not None and key not in keys:
            keys.append(key)
            schema = self.schemas.get(key)
            if not self._is_alias(schema):
                break
        return keys[-1] if keys else None

    def key_of(self, node: object) -> str | None:
        """Return the key of what a node refers to, or None if it is no reference."""
        return resolve(self._document, node)[0]

    def target(self, node: object) -> Any:
        """Return what a node refers to, or the node itself."""
        return resolve(self._document, node)[1]

    def model_name(self, key: str) -> str:
        """Return the name of a model for readers."""
        return model_name(key, mapping(self.schemas.get(key)))

    @staticmethod
    def is_made(key: str) -> bool:
        """Return whether FastStream has made the name of a schema."""
        return _MADE_NAME.search(key) is not None

    @staticmethod
    def _is_alias(schema: object) -> bool:
        """Return whether a schema only refers to another one, as FastStream writes for some payloads."""
        details = mapping(schema)
        return "$ref" in details and not any(value for key, value in details.items() if key != "$ref")

    # --- operations and messages ---

    def _operations_3(self) -> Iterator[Operation]:
        for key, value in mapping(self._document.get("operations")).items():
            details = mapping(value)
            channel_key, channel = self._resolved(details.get("channel"))
            # Without messages of its own, an operation has all of its channel.
            messages = details.get("messages", [*mapping(channel.get("messages")).values()])
            reply = mapping(self.target(details.get("reply")))
            operation = Operation(key, str(details.get("action")), details, channel_key or key, channel)
            yield self._with_messages(operation, sequence(messages), sequence(reply.get("messages")))

    def _operations_2(self) -> Iterator[Operation]:
        for key, value in mapping(self._document.get("channels")).items():
            channel = mapping(value)
            # AsyncAPI 2 describes a client's view: a client publishes what this application receives.
            for keyword, action in (("publish", "receive"), ("subscribe", "send")):
                if details := mapping(channel.get(keyword)):
                    message = details.get("message")
                    messages = sequence(mapping(message).get("oneOf")) or [message] * (message is not None)
                    operation = Operation(f"{key}-{keyword}", action, details, key, channel)
                    yield self._with_messages(operation, messages, [])

    def _with_messages(self, operation: Operation, messages: list[Any], replies: list[Any]) -> Operation:
        operation.heading = heading_of(operation.channel_key, operation.channel, self._titles)
        operation.messages += dict.fromkeys(self._message(*self._resolved(node)) for node in messages)
        operation.replies += dict.fromkeys(self._message(*self._resolved(node)) for node in replies)
        for message in dict.fromkeys(operation.messages + operation.replies):
            message.operations.append(operation)
        return operation

    def _resolved(self, node: object) -> tuple[str | None, dict[str, Any]]:
        key, target = resolve(self._document, node)
        return key, mapping(target)

    def _message(self, key: str | None, content: dict[str, Any]) -> Message:
        """Return the message; those that are the same except for what FastStream has made are one."""
        key = str(key or content.get("name") or content.get("title") or "message")
        title = content.get("title")
        if title is not None and _MADE_TITLE.search(str(title)):
            content = {name: value for name, value in content.items() if name != "title"}
            title = None
        message = Message(key, "", content)
        message.name = str(title or self._payload_name(message.payload) or readable(key))
        same = json.dumps(
            [message.name, {**content, "payload": self._payload_key(message.payload)}], sort_keys=True
        )
        return self._messages.setdefault(same, message)

    def _payload_name(self, payload: object) -> str | None:
        """Return the name of the payload's model, or of its models."""
        key = self.model_key(payload)
        if key is not None and not self.is_made(key):
            return self.model_name(key)
        details = mapping(self.target(payload))
        if (inner := self._payload_name(details.get("items")) if "items" in details else None) is not None:
            return f"array of {inner}"
        choices = sequence(details.get("oneOf")) or sequence(details.get("anyOf"))
        names = [self._payload_name(choice) for choice in choices]
        return " or ".join(map(str, names)) if names and all(names) else None

    def _payload_key(self, payload: object) -> Any:
        return self.model_key(payload) or payload


def _component(schema: object) -> str | None:
    """Return the key of the schema among the components that a schema refers to."""
    reference = mapping(schema).get("$ref")
    *parents, key = pointer_names(reference) if isinstance(reference, str) else [""]
    return key if parents == ["components", "schemas"] else None


def sequence(value: object) -> list[Any]:
    """Return the value if it is a list, else an empty one, because a document may contain anything."""
    return value if isinstance(value, list) else []
