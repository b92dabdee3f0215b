"""An audit trail on Kafka with confluent-kafka: several routers, and overrides in production."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, HTTPException, Query
from faststream.confluent import KafkaRouter as Group
from faststream.confluent.fastapi import KafkaBroker, KafkaMessage, KafkaRouter, Logger
from pydantic import BaseModel, Field


class Entry(BaseModel):
    actor: str
    action: str
    at: datetime = Field(default_factory=lambda: datetime(2026, 1, 1, tzinfo=UTC))


class Deleted(BaseModel):
    actor: str
    reason: str | None = None


class Trail(Protocol):
    """What stores entries; the application says which one."""

    async def add(self, entry: Entry) -> None: ...

    async def find(self, actor: str | None) -> list[Entry]: ...

    async def forget(self, actor: str) -> int: ...


class InMemoryTrail:
    def __init__(self) -> None:
        self.entries: list[Entry] = []

    async def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    async def find(self, actor: str | None) -> list[Entry]:
        return [entry for entry in self.entries if actor in {None, entry.actor}]

    async def forget(self, actor: str) -> int:
        kept = [entry for entry in self.entries if entry.actor != actor]
        count = len(self.entries) - len(kept)
        self.entries = kept
        return count


def get_trail() -> Trail:
    raise NotImplementedError


UsedTrail = Annotated[Trail, Depends(get_trail)]
received: list[str] = []


class Unit:
    """A unit of work that knows its message."""

    def __init__(self, trail: UsedTrail, message: KafkaMessage, logger: Logger) -> None:
        self.trail = trail
        self.source = str(message.headers.get("source", "unknown"))
        self.logger = logger

    async def write(self, entry: Entry) -> None:
        self.logger.info("%s by %s", entry.action, entry.actor)
        await self.trail.add(entry)
        received.append(f"{entry.action} from {self.source}")


async def open_unit(unit: Annotated[Unit, Depends()]) -> AsyncIterator[Unit]:
    received.append("open")
    try:
        yield unit
    finally:
        received.append("closed")


def record(message: KafkaMessage) -> None:
    received.append(f"guard {message.content_type}")


entries = KafkaRouter("127.0.0.1:1", prefix="/entries", schema_url=None, dependencies=[])
events = KafkaRouter("127.0.0.1:1", schema_url=None, setup_state=False)
group = Group()


@entries.subscriber("entries", dependencies=[Depends(record)])
async def write(entry: Entry, unit: Annotated[Unit, Depends(open_unit)]) -> None:
    if entry.action == "fail":
        msg = "This entry fails."
        raise ValueError(msg)
    await unit.write(entry)


@group.subscriber("deletions")
@group.publisher("deleted")
async def delete(deleted: Deleted, trail: UsedTrail) -> dict[str, Any]:
    return {"count": await trail.forget(deleted.actor), "reason": deleted.reason or "none"}


@events.subscriber("deleted")
async def report(count: int, reason: str, broker: KafkaBroker) -> None:
    received.append(f"{count} deleted: {reason} {broker is events.broker}")


events.include_router(group)


@entries.post("", status_code=202)
async def post(entry: Entry, source: Annotated[str, Query()] = "web") -> None:
    try:
        await entries.broker.publish(entry, topic="entries", headers={"source": source})
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


@entries.get("")
async def show(trail: UsedTrail, actor: str | None = None) -> list[Entry]:
    return await trail.find(actor)


@entries.delete("/{actor}")
async def forget(actor: str, reason: str | None = None) -> None:
    await events.broker.publish(Deleted(actor=actor, reason=reason), topic="deletions")


def make_app(*routers: KafkaRouter, overrides: dict[Callable[..., Any], Callable[..., Any]]) -> FastAPI:
    made = FastAPI(title="Audit", version="3.1")
    for each in routers:
        made.include_router(each)
    made.dependency_overrides.update(overrides)
    return made


used = InMemoryTrail()
app = make_app(entries, events, overrides={get_trail: lambda: used})
ROUTERS = [entries, events]
