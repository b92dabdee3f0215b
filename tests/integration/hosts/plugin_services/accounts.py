"""Accounts on RabbitMQ: a broker's router, background tasks, invalid messages, a lifespan of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from faststream import BaseMiddleware, ExceptionMiddleware
from faststream.rabbit import ExchangeType, RabbitExchange, RabbitQueue
from faststream.rabbit import RabbitRouter as Group
from faststream.rabbit.fastapi import Logger, RabbitMessage, RabbitRouter
from pydantic import BaseModel, PositiveInt


class Transfer(BaseModel):
    source: str
    target: str
    amount: PositiveInt


class Ledger:
    def __init__(self) -> None:
        self.balances: dict[str, int] = {}
        self.refused: list[Any] = []
        self.notified: list[str] = []
        self.seen: list[str] = []
        self.open = False

    def move(self, transfer: Transfer) -> None:
        self.balances[transfer.source] = self.balances.get(transfer.source, 0) - transfer.amount
        self.balances[transfer.target] = self.balances.get(transfer.target, 0) + transfer.amount


ledger = Ledger()
errors = ExceptionMiddleware()


@errors.add_handler(RequestValidationError)
def refuse(error: RequestValidationError) -> None:
    ledger.refused.append([list(each["loc"]) for each in error.errors()])


class Counting(BaseMiddleware):
    async def consume_scope(self, call_next: Any, msg: Any) -> Any:
        ledger.seen.append(str(msg.headers.get("kind", "none")))
        return await call_next(msg)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    ledger.open = True
    yield {"ledger": ledger}
    ledger.open = False


router = RabbitRouter(
    "amqp://guest:guest@127.0.0.1:1/",
    middlewares=[errors, Counting],
    lifespan=lifespan,
    graceful_timeout=1.0,
    description="Accounts",
)
exchange = RabbitExchange("accounts", type=ExchangeType.TOPIC)
notices = Group(prefix="notices.")


def get_ledger(request: Request) -> Ledger:
    assert request.app.title == "Accounts"
    return ledger


async def notify(text: str) -> None:
    ledger.notified.append(text)


@router.subscriber(RabbitQueue("transfers", routing_key="transfers.*"), exchange)
async def transfer(
    transfer: Transfer,
    message: RabbitMessage,
    ledger: Annotated[Ledger, Depends(get_ledger)],
    tasks: BackgroundTasks,
) -> dict[str, Any]:
    ledger.move(transfer)
    tasks.add_task(notify, f"{transfer.source} to {transfer.target}")
    await router.broker.publish(f"{transfer.amount} moved", "notices.sent")
    return {"kind": message.headers.get("kind"), "balance": ledger.balances[transfer.source]}


@notices.subscriber("sent")
async def sent(text: str, logger: Logger) -> None:
    logger.info("%s", text)
    ledger.notified.append(text)


@router.subscriber("closed")
async def close(account: str, reason: str = "none") -> None:
    ledger.balances.pop(account)
    ledger.notified.append(f"closed {account}: {reason}")


router.include_router(notices)


@router.post("/transfers")
async def post_transfer(transfer: Transfer) -> dict[str, Any]:
    reply = await router.broker.request(
        transfer, routing_key="transfers.new", exchange=exchange, headers={"kind": "new"}, timeout=5
    )
    result: Any = await reply.decode()
    return dict(result)


@router.post("/closed/{account}")
async def post_closed(account: str, reason: str | None = None) -> None:
    body: Any = {"account": account} if reason is None else {"account": account, "reason": reason}
    await router.broker.publish(body, "closed")


@router.get("/balances")
async def get_balances(request: Request) -> dict[str, int]:
    balances: dict[str, int] = request.state.ledger.balances
    return balances


app = FastAPI(title="Accounts")
app.include_router(router)
ROUTERS = [router]
