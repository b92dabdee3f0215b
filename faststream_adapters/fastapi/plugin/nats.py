"""The stand-in for `faststream.nats.fastapi`."""

from typing import Annotated, Any, TypeAlias

from faststream.nats import NatsBroker as Broker
from faststream.nats import annotations
from faststream.nats.message import NatsMessage as Message
from faststream.nats.publisher.usecase import LogicPublisher
from faststream.nats.subscriber.usecases import LogicSubscriber
from nats.aio.client import Client as NatsClient
from nats.js.client import JetStreamContext

from ._router import Context, ContextRepo, Logger, StreamRouter, like

__all__ = (
    "Client",
    "Context",
    "ContextRepo",
    "JsClient",
    "Logger",
    "NatsBroker",
    "NatsMessage",
    "NatsRouter",
)

NatsBroker: TypeAlias = Annotated[Broker, Context("broker")]
NatsMessage: TypeAlias = Annotated[Message, Context("message")]
Client: TypeAlias = Annotated[NatsClient, like(annotations.Client)]
JsClient: TypeAlias = Annotated[JetStreamContext, like(annotations.JsClient)]


class NatsRouter(StreamRouter[Broker, LogicSubscriber[Any], LogicPublisher]):
    """FastStream's NatsRouter for FastAPI."""

    broker_class = Broker
