"""The order service in FastAPI, with SQLAlchemy. Run it with `uvicorn examples.fastapi_app:app`."""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException
from faststream.nats import NatsBroker
from pydantic import BaseModel, PositiveInt
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from faststream_adapters.fastapi import FastStreamRouter, provide_broker


class NewOrder(BaseModel):
    item: str
    quantity: PositiveInt
    price: Decimal


class Order(NewOrder):
    id: UUID


class FinishedOrder(Order):
    total: Decimal


class Table(DeclarativeBase):
    """The base class of all tables."""


class StoredOrder(Table):
    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    document: Mapped[str]


broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:4222"))
engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///orders.db"))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Table.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(title="Order service", version="1.0.0", lifespan=lifespan)
app.include_router(
    FastStreamRouter(
        broker,
        ping_path="/health",
        liveness_path="/livez",
        readiness_path="/readyz",
        startup_path="/startupz",
        asyncapi_path="/asyncapi",
    )
)


async def get_session() -> AsyncIterator[AsyncSession]:
    """Open a session, and commit at the end, unless there was an error."""
    async with AsyncSession(engine) as session, session.begin():
        yield session


# A route gets the broker by this annotation, and routes and subscribers alike get a session.
Broker = Annotated[NatsBroker, Depends(provide_broker(NatsBroker))]
Session = Annotated[AsyncSession, Depends(get_session)]


# Queue group: each order goes to one instance of the service, however many run.
@broker.subscriber("orders.new", queue="order-service")
@broker.publisher("orders.done")
async def process(order: Order) -> FinishedOrder:
    return FinishedOrder(**order.model_dump(), total=order.quantity * order.price)


# No queue group: every instance receives every result, and stores it in a database of its own.
@broker.subscriber("orders.done")
async def store(order: FinishedOrder, session: Session) -> None:
    # An order that is delivered again is stored once.
    await session.merge(StoredOrder(id=order.id, document=order.model_dump_json()))


@app.post("/orders", status_code=202)
async def place_order(new: NewOrder, broker: Broker) -> Order:
    order = Order(**new.model_dump(), id=uuid4())
    await broker.publish(order, "orders.new")
    return order


@app.get("/orders/{order_id}")
async def show_order(order_id: UUID, session: Session) -> FinishedOrder:
    stored = await session.get(StoredOrder, order_id)
    if stored is None:
        raise HTTPException(404, "There is no such order, or it is not finished yet.")
    return FinishedOrder.model_validate_json(stored.document)
