"""Orders on NATS: sessions and services as dependencies, hooks, a publisher, the broker in the state."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from faststream.nats.fastapi import Logger, NatsBroker, NatsMessage, NatsRouter
from pydantic import BaseModel, Field


class Order(BaseModel):
    number: int
    item: str = Field(min_length=1)
    quantity: int = 1


class Bill(BaseModel):
    order: int
    total: int


class Database:
    def __init__(self) -> None:
        self.orders: dict[int, Order] = {}
        self.bills: dict[int, Bill] = {}
        self.commits = 0
        self.log: list[str] = []


class Session:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.added: list[Order | Bill] = []

    def add(self, row: Order | Bill) -> None:
        self.added.append(row)

    def commit(self) -> None:
        for row in self.added:
            if isinstance(row, Order):
                self.database.orders[row.number] = row
            else:
                self.database.bills[row.order] = row
        self.database.commits += 1


router = NatsRouter(
    "nats://127.0.0.1:1",
    prefix="/orders",
    tags=["orders"],
    schema_url="/docs/asyncapi",
    description="Takes orders",
)
database = Database()


def get_database() -> Database:
    return database


async def get_session(database: Annotated[Database, Depends(get_database)]) -> AsyncIterator[Session]:
    session = Session(database)
    yield session
    session.commit()


OpenSession = Annotated[Session, Depends(get_session)]


class Trail:
    """Knows which message a subscriber handles."""

    def __init__(self, message: NatsMessage, logger: Logger, broker: NatsBroker) -> None:
        self.correlation_id = message.correlation_id
        self.logger = logger
        self.is_up = broker is router.broker

    def add(self, what: str, database: Database) -> None:
        self.logger.info("%s in %s", what, self.correlation_id)
        database.log.append(f"{what} {self.correlation_id} {self.is_up}")


class Prices:
    def __init__(self, prices: dict[str, int] | None = None) -> None:
        self.prices = prices or {"tea": 3, "milk": 2}

    def of(self, order: Order) -> int:
        return self.prices[order.item] * order.quantity


def get_prices() -> Prices:
    return Prices()


@router.subscriber("orders.placed")
@router.publisher("orders.billed")
async def place(
    order: Order,
    session: OpenSession,
    trail: Annotated[Trail, Depends()],
    prices: Annotated[Prices, Depends(get_prices)],
) -> Bill:
    session.add(order)
    trail.add("placed", session.database)
    return Bill(order=order.number, total=prices.of(order))


@router.subscriber("orders.billed")
async def keep_bill(bill: Bill, session: OpenSession) -> None:
    session.add(bill)


@router.subscriber("orders.cancelled")
async def cancel(number: int, database: Annotated[Database, Depends(get_database)]) -> None:
    database.orders.pop(number)


@router.post("/", status_code=202)
async def post_order(order: Order, request: Request) -> dict[str, int]:
    await request.state.broker.publish(order, "orders.placed", correlation_id=f"order-{order.number}")
    return {"number": order.number}


@router.get("/{number}")
async def get_order(number: int, database: Annotated[Database, Depends(get_database)]) -> Order:
    if number not in database.orders:
        raise HTTPException(404, "There is no such order.")
    return database.orders[number]


@router.delete("/{number}", status_code=204)
async def delete_order(number: int) -> None:
    await router.broker.publish({"number": number}, "orders.cancelled")


@router.after_startup
async def announce(app: FastAPI) -> dict[str, Any]:
    database.log.append(f"{app.title} is up")
    return {"opened": True}


@router.on_broker_shutdown
def farewell(app: FastAPI) -> None:
    database.log.append(f"{app.title} stops")


reports = APIRouter(prefix="/reports")


@reports.get("/bills")
async def get_bills(request: Request, session: OpenSession) -> Sequence[Any]:
    return [request.state.opened, *sorted(bill.total for bill in session.database.bills.values())]


app = FastAPI(title="Orders")
app.include_router(router)
app.include_router(reports)
ROUTERS = [router]
