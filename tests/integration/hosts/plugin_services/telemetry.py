"""Telemetry on Kafka: batches, keys and headers, parsers, late subscribers, an application from a factory."""

from collections.abc import Awaitable, Callable
from statistics import mean
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Security
from fastapi.security import SecurityScopes
from faststream.kafka.fastapi import ContextRepo, KafkaBroker, KafkaMessage, KafkaRouter
from pydantic import BaseModel


class Reading(BaseModel):
    sensor: str
    value: float


class Alarm(BaseModel):
    sensor: str
    limit: float


class Store:
    def __init__(self) -> None:
        self.readings: dict[str, list[float]] = {}
        self.alarms: list[str] = []
        self.rooms: list[str] = []
        self.scopes: list[list[str]] = []
        self.batches: list[int] = []

    def add(self, reading: Reading) -> None:
        self.readings.setdefault(reading.sensor, []).append(reading.value)

    def mean_of(self, sensor: str) -> float:
        return mean(self.readings[sensor])


class Limits:
    def __init__(self, limit: float) -> None:
        self.limit = limit

    async def __call__(self, context: ContextRepo) -> float:
        limit: float = context.get("limit", self.limit)
        return limit


async def parse(message: Any, original: Callable[[Any], Awaitable[Any]]) -> Any:
    parsed = await original(message)
    parsed.headers.setdefault("room", "hall")
    return parsed


class Service:
    """What an application needs, without globals."""

    def __init__(self, store: Store, broker: KafkaBroker) -> None:
        self.store = store
        self.broker: Any = broker

    async def alarm(self, reading: Reading, limit: float) -> None:
        await self.broker.publish(
            Alarm(sensor=reading.sensor, limit=limit), topic="alarms", key=reading.sensor.encode()
        )


def make_app() -> tuple[FastAPI, KafkaRouter]:
    router = KafkaRouter("127.0.0.1:1", client_id="telemetry", parser=parse, setup_state=True)
    app = FastAPI(title="Telemetry")
    app.state.store = Store()
    api = APIRouter(prefix="/api")
    subscribe(router)
    add_routes(router)
    api.include_router(router)
    app.include_router(api)
    subscribe_late(router)
    return app, router


def get_store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def get_scopes(scopes: SecurityScopes) -> list[str]:
    return list(scopes.scopes)


Stored = Annotated[Store, Depends(get_store)]


def get_room(message: KafkaMessage) -> str:
    return str(message.headers["room"])


def subscribe(router: KafkaRouter) -> None:
    def get_service(store: Stored) -> Service:
        return Service(store, router.broker)

    @router.subscriber("readings")
    async def reading(
        reading: Reading,
        room: Annotated[str, Depends(get_room)],
        service: Annotated[Service, Depends(get_service)],
        limit: Annotated[float, Depends(Limits(30.0))],
    ) -> None:
        service.store.add(reading)
        service.store.rooms.append(room)
        if reading.value > limit:
            await service.alarm(reading, limit)

    @router.subscriber("bulk", batch=True)
    async def bulk(readings: list[Reading], store: Stored) -> None:
        store.batches.append(len(readings))
        for each in readings:
            store.add(each)


def subscribe_late(router: KafkaRouter) -> None:
    @router.subscriber("alarms", group_id="alarms")
    async def alarm(
        alarm: Alarm, store: Stored, scopes: Annotated[list[str], Security(get_scopes, scopes=["alarms"])]
    ) -> None:
        store.alarms.append(f"{alarm.sensor} over {alarm.limit}")
        store.scopes.append(scopes)

    @router.subscriber("forgotten")
    def forget(sensor: str, store: Stored) -> None:
        store.readings.pop(sensor)


def add_routes(router: KafkaRouter) -> None:
    @router.post("/readings", status_code=201)
    async def post(reading: Reading, room: str | None = None) -> None:
        await router.broker.publish(reading, topic="readings", headers={"room": room} if room else None)

    @router.get("/means")
    async def means(store: Stored) -> dict[str, float]:
        return {sensor: store.mean_of(sensor) for sensor in store.readings}


app, router = make_app()
ROUTERS = [router]
