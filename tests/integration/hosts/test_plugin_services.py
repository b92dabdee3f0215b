"""Services on FastStream's FastAPI plugin do the same on the stand-in when the import is changed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from tests.docs.blocks import load
from tests.harness.plugins import SERVICES, STAND_IN, client_of, importable_plugins, in_memory, with_stand_in

if TYPE_CHECKING:
    from pathlib import Path

    import httpx


async def orders(service: Any, http: httpx.AsyncClient) -> Any:
    prices = service.get_prices()
    prices.prices["tea"] = 5
    service.app.dependency_overrides[service.get_prices] = lambda: prices
    responses = [
        await http.post("/orders/", json={"number": 1, "item": "tea", "quantity": 2}),
        await http.post("/orders/", json={"number": 2, "item": "milk"}),
        await http.post("/orders/", json={"number": 3}),
        await http.get("/orders/1"),
        await http.delete("/orders/1"),
        await http.get("/orders/1"),
        await http.get("/reports/bills"),
    ]
    document = (await http.get("/orders/docs/asyncapi.json")).json()
    return [
        [(each.status_code, each.text) for each in responses],
        service.database.log,
        sorted(document["channels"]),
        document["servers"]["development"]["description"],
    ]


async def accounts(service: Any, http: httpx.AsyncClient) -> Any:
    responses = [
        await http.post("/transfers", json={"source": "ann", "target": "bob", "amount": 5}),
        await http.post("/transfers", json={"source": "ann", "target": "bob", "amount": 0}),
        await http.post("/closed/bob"),
        await http.post("/closed/ann", params={"reason": "moved"}),
        await http.get("/balances"),
    ]
    invalid = {"source": "ann", "amount": -1}
    await service.router.broker.publish(invalid, routing_key="transfers.x", exchange=service.exchange)
    return [
        [each.status_code for each in responses],
        [responses[0].json(), responses[4].json()],
        service.ledger.notified,
        service.ledger.refused,
        service.ledger.seen,
        service.ledger.open,
    ]


async def telemetry(service: Any, http: httpx.AsyncClient) -> Any:
    responses = [
        await http.post("/api/readings", json={"sensor": "a", "value": 20.0}),
        await http.post("/api/readings", json={"sensor": "a", "value": 40.0}, params={"room": "attic"}),
    ]
    broker = service.router.broker
    await broker.publish_batch({"sensor": "b", "value": 1}, {"sensor": "b", "value": 2}, topic="bulk")
    broker.context.set_global("limit", 50.0)
    await broker.publish({"sensor": "c", "value": 45}, topic="readings")
    means = await http.get("/api/means")
    await broker.publish({"sensor": "c"}, topic="forgotten")
    await broker.publish("b", topic="forgotten")
    store = service.app.state.store
    return [
        [each.status_code for each in responses],
        means.json(),
        [*store.readings],
        store.rooms,
        store.alarms,
        store.scopes,
        store.batches,
    ]


async def chat(service: Any, http: httpx.AsyncClient) -> Any:
    responses = [
        await http.post("/rooms/tea", json={"author": "ann", "text": "hello"}),
        await http.post("/rooms/tea", json={"author": "bob", "text": "spam"}),
        await http.post("/rooms/tea", json={"author": "bob", "text": " "}),
        await http.post("/rooms/closed", json={"author": "ann", "text": "hello"}),
        await http.put("/jobs/7"),
        await http.get("/rooms/tea"),
    ]
    with TestClient(service.app).websocket_connect("/ws/tea") as socket:
        socket.send_text("hi")
        received = socket.receive_json()
        socket.send_text("bye")
    rooms = service.rooms
    return [
        [each.status_code for each in responses],
        responses[-1].json(),
        received,
        rooms.archived,
        rooms.jobs,
        rooms.open_files,
        rooms.events,
    ]


async def audit(service: Any, http: httpx.AsyncClient) -> Any:
    entry = {"actor": "ann", "action": "login"}
    responses = [
        await http.post("/entries", json=entry),
        await http.post("/entries", json={**entry, "actor": "bob"}, params={"source": "cli"}),
        await http.post("/entries", json={**entry, "action": "fail"}),
        await http.get("/entries", params={"actor": "bob"}),
        await http.delete("/entries/bob", params={"reason": "left"}),
        await http.delete("/entries/eve"),
        await http.get("/entries"),
    ]
    with pytest.raises(NotImplementedError):
        service.get_trail()
    return [[(each.status_code, each.text) for each in responses], service.received]


async def devices(service: Any, http: httpx.AsyncClient) -> Any:
    await service.router.broker.publish({"on": True}, "devices.lamp.state")
    responses = [
        await http.post("/v1/devices/fan/level/30"),
        await http.post("/v1/devices/command", json={"name": "fan", "level": 0}),
        await http.get("/v1/devices/lamp"),
        await http.get("/v1/devices/none"),
        await http.post("/v1/tenants/3/1"),
        await http.post("/v1/tenants/16/2"),
    ]
    await service.router.broker.publish({"name": "fan", "level": 9}, "devices.command")
    responses.append(await http.get("/v1/devices/history"))
    return [(each.status_code, each.text) for each in responses]


LOGIN = '{"actor":"%s","action":"login","at":"2026-01-01T00:00:00Z"}'
MISSING_ITEM = (
    '{"detail":[{"type":"missing","loc":["body","item"],"msg":"Field required","input":{"number":3}}]}'
)

EXPECTED: dict[Any, Any] = {
    orders: [
        [
            (202, '{"number":1}'),
            (202, '{"number":2}'),
            (422, MISSING_ITEM),
            (200, '{"number":1,"item":"tea","quantity":2}'),
            (204, ""),
            (404, '{"detail":"There is no such order."}'),
            (200, "[true,2,10]"),
        ],
        ["Orders is up", "placed order-1 True", "placed order-2 True"],
        [
            "orders.billed:KeepBill",
            "orders.billed:Publisher",
            "orders.cancelled:Cancel",
            "orders.placed:Place",
        ],
        "Takes orders",
    ],
    accounts: [
        [200, 422, 200, 200, 200],
        [{"kind": "new", "balance": -5}, {}],
        ["5 moved", "ann to bob", "closed bob: none", "closed ann: moved"],
        [[["body", "target"], ["body", "amount"]]],
        ["new", "none", "none", "none", "none", "none"],
        True,
    ],
    telemetry: [
        [201, 201],
        {"a": 30.0, "b": 1.5, "c": 45.0},
        ["a"],
        ["hall", "attic", "hall"],
        ["a over 30.0"],
        [["alarms"]],
        [2],
    ],
    chat: [
        [200, 200, 422, 409, 200, 200],
        ["be kind", "3", "ann: hello"],
        ["ann: hello", "socket: hi"],
        ["ann hello", "socket hi"],
        [{"job": 7}, [7, "7"]],
        0,
        ["Chat after", "up"],
    ],
    audit: [
        [
            (202, "null"),
            (202, "null"),
            (422, '{"detail":"This entry fails."}'),
            (200, f"[{LOGIN % 'bob'}]"),
            (200, "null"),
            (200, "null"),
            (200, f"[{LOGIN % 'ann'}]"),
        ],
        [
            *("guard application/json", "open", "login from web", "closed"),
            *("guard application/json", "open", "login from cli", "closed"),
            *("guard application/json", "open", "closed"),
            *("1 deleted: left True", "0 deleted: none True"),
        ],
    ],
    devices: [
        (200, "null"),
        (200, '"fan at 0"'),
        (200, '{"name":"lamp","on":true,"level":100}'),
        (200, '""'),
        (200, "null"),
        (200, "null"),
        (200, '["lamp on 100","fan on 30","fan off 0","fan on 9","tenant 3","tenant 16","tenant 16"]'),
    ],
}


@pytest.mark.parametrize("plugin", importable_plugins())
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(each, id=each.__name__, marks=[] if each is orders else pytest.mark.full)
        for each in EXPECTED
    ],
)
async def test_a_service_does_the_same(scenario: Any, plugin: str, tmp_path: Path) -> None:
    service = load_service(scenario.__name__, plugin, tmp_path)
    async with in_memory(*service.ROUTERS), client_of(service.app) as http:
        assert await scenario(service, http) == EXPECTED[scenario]


def load_service(name: str, plugin: str, directory: Path) -> Any:
    path = SERVICES / f"{name}.py"
    if plugin == STAND_IN:
        code = with_stand_in(path.read_text(encoding="utf-8"))
    else:
        directory, code = path.parent, path.read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return load(code, directory, name)


@pytest.mark.parametrize("name", [scenario.__name__ for scenario in EXPECTED])
def test_only_the_import_changes(name: str) -> None:
    code = (SERVICES / f"{name}.py").read_text(encoding="utf-8")
    before, after = code.splitlines(), with_stand_in(code).splitlines()
    assert len(before) >= 100
    changed = [line for line, old in zip(after, before, strict=True) if line != old]
    assert len(changed) == 1
    assert changed[0].startswith(f"from {STAND_IN.partition('{')[0]}")
