"""The stand-in for `faststream.rabbit.fastapi`."""

from typing import Annotated, TypeAlias

from faststream.rabbit import RabbitBroker as Broker
from faststream.rabbit import annotations
from faststream.rabbit.message import RabbitMessage as Message
from faststream.rabbit.publisher import RabbitPublisher
from faststream.rabbit.publisher.producer import AioPikaFastProducer
from faststream.rabbit.subscriber import RabbitSubscriber

from ._router import Context, ContextRepo, Logger, StreamRouter, like

__all__ = (
    "Context",
    "ContextRepo",
    "Logger",
    "RabbitBroker",
    "RabbitMessage",
    "RabbitProducer",
    "RabbitRouter",
)

RabbitBroker: TypeAlias = Annotated[Broker, Context("broker")]
RabbitMessage: TypeAlias = Annotated[Message, Context("message")]
RabbitProducer: TypeAlias = Annotated[AioPikaFastProducer, like(annotations.RabbitProducer)]


class RabbitRouter(StreamRouter[Broker, RabbitSubscriber, RabbitPublisher]):
    """FastStream's RabbitRouter for FastAPI."""

    broker_class = Broker
