"""The stand-in for `faststream.confluent.fastapi`."""

from typing import Annotated, Any, TypeAlias

from faststream.confluent import KafkaBroker as Broker
from faststream.confluent import annotations
from faststream.confluent.message import KafkaMessage as Message
from faststream.confluent.publisher.producer import AsyncConfluentFastProducer
from faststream.confluent.publisher.usecase import LogicPublisher
from faststream.confluent.subscriber.usecase import LogicSubscriber

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
KafkaProducer: TypeAlias = Annotated[AsyncConfluentFastProducer, like(annotations.KafkaProducer)]


class KafkaRouter(StreamRouter[Broker, LogicSubscriber[Any], LogicPublisher]):
    """FastStream's KafkaRouter for FastAPI, on confluent-kafka."""

    broker_class = Broker
