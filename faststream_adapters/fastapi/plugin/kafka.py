"""The stand-in for `faststream.kafka.fastapi`."""

from typing import Annotated, Any, TypeAlias

from faststream.kafka import KafkaBroker as Broker
from faststream.kafka import annotations
from faststream.kafka.message import KafkaMessage as Message
from faststream.kafka.publisher.producer import AioKafkaFastProducer
from faststream.kafka.publisher.usecase import LogicPublisher
from faststream.kafka.subscriber.usecase import LogicSubscriber

from ._router import Context, ContextRepo, Logger, StreamRouter, like

__all__ = (
    "Context",
    "ContextRepo",
    "KafkaBroker",
    "KafkaMessage",
    "KafkaProducer",
    "KafkaRouter",
    "Logger",
)

KafkaBroker: TypeAlias = Annotated[Broker, Context("broker")]
KafkaMessage: TypeAlias = Annotated[Message, Context("message")]
KafkaProducer: TypeAlias = Annotated[AioKafkaFastProducer, like(annotations.KafkaProducer)]


class KafkaRouter(StreamRouter[Broker, LogicSubscriber[Any], LogicPublisher]):
    """FastStream's KafkaRouter for FastAPI."""

    broker_class = Broker
