"""Devices on NATS: request and reply, parts of subjects, a route that is a subscriber, 18 routers."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from faststream import BaseMiddleware
from faststream.nats.fastapi import Context, ContextRepo, NatsMessage, NatsRouter
from pydantic import BaseModel


class State(BaseModel):
    on: bool
    level: int = 100


class Command(BaseModel):
    name: str
    level: int


class Registry:
    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.history: list[str] = []
        self.tenants: list[int] = []
        self.lock = asyncio.Lock()

    async def update(self, name: str, state: State) -> None:
        async with self.lock:
            self.states[name] = state
            self.history.append(f"{name} {'on' if state.on else 'off'} {state.level}")


class Trace(BaseMiddleware):
    """Adds the device of the message to the context."""

    async def consume_scope(self, call_next: Any, msg: Any) -> Any:
        self.context.set_local("device", msg.path.get("name", "none"))
        return await call_next(msg)


logger = logging.getLogger("devices")
router = NatsRouter(
    ["nats://127.0.0.1:1"],
    logger=logger,
    log_level=logging.DEBUG,
    middlewares=(Trace,),
    setup_state=False,
    prefix="/devices",
)


async def open_registry(app: FastAPI) -> None:
    app.state.registry = Registry()


router.after_startup(open_registry)


def get_registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


UsedRegistry = Annotated[Registry, Depends(get_registry)]


class Device:
    """The device that sent a message."""

    def __init__(self, name: Annotated[str, Context("device")], context: ContextRepo) -> None:
        self.name = name
        self.has_context = context is not None


@router.subscriber("devices.{name}.state")
async def receive(
    state: State, device: Annotated[Device, Depends()], registry: UsedRegistry, message: NatsMessage
) -> None:
    assert device.has_context
    assert message.path == {"name": device.name}
    await registry.update(device.name, state)


@router.subscriber("devices.{name}.level")
async def set_level(level: int, name: str, registry: UsedRegistry) -> None:
    await registry.update(name, State(on=level > 0, level=level))


@router.subscriber("devices.find")
async def find(name: str, registry: UsedRegistry) -> dict[str, Any] | None:
    state = registry.states.get(name)
    return None if state is None else {"name": name, **state.model_dump()}


@router.subscriber("devices.command")
@router.post("/command")
async def command(command: Command, registry: UsedRegistry) -> str:
    await registry.update(command.name, State(on=command.level > 0, level=command.level))
    return f"{command.name} at {command.level}"


@router.get("/history")
async def history(registry: UsedRegistry) -> Sequence[str]:
    return [*registry.history, *(f"tenant {each}" for each in registry.tenants)]


@router.get("/{name}")
async def show(name: str) -> Any:
    reply = await router.broker.request({"name": name}, "devices.find", timeout=2)
    return await reply.decode()


@router.post("/{name}/level/{level}")
async def put_level(name: str, level: int) -> None:
    await router.broker.publish(level, f"devices.{name}.level")


def make_tenant(number: int) -> NatsRouter:
    tenant = NatsRouter(prefix=f"/tenants/{number}", schema_url=None, include_in_schema=False)

    @tenant.subscriber(f"tenants.{number}")
    async def receive(times: int, registry: UsedRegistry) -> None:
        registry.tenants += [number] * times

    @tenant.post("/{times}")
    async def send(times: int) -> None:
        await tenant.broker.publish({"times": times, "more": True}, f"tenants.{number}")

    return tenant


tenants = [make_tenant(number) for number in range(17)]
api = APIRouter(prefix="/v1")
for each in (router, *tenants):
    api.include_router(each)
app = FastAPI(title="Devices")
app.include_router(api)
ROUTERS = [router, *tenants]
