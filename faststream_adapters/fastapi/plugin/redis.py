"""The stand-in for `faststream.redis.fastapi`."""

from typing import Annotated, TypeAlias

from faststream.redis import RedisBroker as Broker
from faststream.redis import RedisSentinelBroker, annotations
from faststream.redis.message import BaseMessage
from faststream.redis.publisher.usecase import LogicPublisher
from faststream.redis.subscriber.usecases import LogicSubscriber
from redis.asyncio.client import Redis as RedisClient

from ._router import Context, ContextRepo, Logger, StreamRouter, like

__all__ = (
    "Context",
    "ContextRepo",
    "Logger",
    "Redis",
    "RedisBroker",
    "RedisChannelMessage",
    "RedisRouter",
    "RedisSentinelRouter",
)

RedisBroker: TypeAlias = Annotated[Broker, Context("broker")]
RedisChannelMessage: TypeAlias = Annotated[BaseMessage, Context("message")]
Redis: TypeAlias = Annotated[RedisClient, like(annotations.Redis)]


class RedisRouter(StreamRouter[Broker, LogicSubscriber, LogicPublisher]):
    """FastStream's RedisRouter for FastAPI."""

    broker_class = Broker


class RedisSentinelRouter(StreamRouter[RedisSentinelBroker, LogicSubscriber, LogicPublisher]):
    """FastStream's RedisSentinelRouter for FastAPI."""

    broker_class = RedisSentinelBroker
