"""Who asks when, from where and for how long: round trips that are shared."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from faststream.exceptions import SetupError
from faststream.nats import NatsBroker

from faststream_adapters import BrokerLifespan, make_ping_asgi, make_readiness_asgi
from faststream_adapters.brokers import Code, Driver
from faststream_adapters.health import SLOW, Result, RoundTrips
from faststream_adapters.supervision import run_of
from tests.conftest import NatsFactory
from tests.servers.nats import NatsServer
from tests.support import eventually, status


class Held(Driver):
    """A broker that answers when the test lets it."""

    def __init__(self) -> None:
        super().__init__(NatsBroker())
        self.asked = 0
        self.go_on = asyncio.Event()

    async def check(self) -> Code:
        self.asked += 1
        await self.go_on.wait()
        return "ok"


class Ready(Driver):
    """A broker that answers at once."""

    def __init__(self) -> None:
        super().__init__(NatsBroker())

    async def check(self) -> Code:
        return "ok"


async def answer(trips: RoundTrips, seconds: float) -> Result:
    return await trips.ask(seconds)


@asynccontextmanager
async def flying(driver: Driver) -> AsyncIterator[RoundTrips]:
    trips = RoundTrips(driver)
    yield trips
    await trips.give_up()


async def test_the_short_patience_of_one_says_nothing_to_others() -> None:
    driver = Held()
    async with flying(driver) as trips:
        patient = trips.ask(60.0)
        assert (await trips.ask(0.02)).code == "timeout"
        assert trips.last is None
        driver.go_on.set()
        assert (await patient).code == "ok"
        assert driver.asked == 1


async def test_a_client_that_cannot_be_asked_without_a_task_is_asked_in_one() -> None:
    class Raising(Held):
        def send(self) -> asyncio.Future[None] | None:
            raise AttributeError

    driver = Raising()
    driver.go_on.set()
    async with flying(driver) as trips:
        assert (await trips.ask(60.0)).code == "ok"
        assert driver.asked == 1


class Sending(Driver):
    """A broker that is asked without a task, and answers when the test lets it."""

    def __init__(self) -> None:
        super().__init__(NatsBroker())
        self.sent: list[asyncio.Future[None]] = []

    def send(self) -> asyncio.Future[None]:
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


async def test_an_answer_that_has_just_been_read_is_told() -> None:
    """The timer looks at the client in the moment between an answer and its being told."""
    driver = Sending()
    async with flying(driver) as trips:
        asked = trips.ask(60.0)
        driver.sent[0].set_result(None)
        trips._look(asyncio.get_running_loop())  # noqa: SLF001 (what the timer does)
        assert (await asked).code == "ok"
        assert len(driver.sent) == 1


async def test_one_that_is_given_up_just_then_tells_those_who_wait() -> None:
    driver = Sending()
    trips = RoundTrips(driver)
    asked = trips.ask(60.0)
    driver.sent[0].set_result(None)
    await trips.give_up()
    assert (await asked).code == "timeout"


async def test_the_end_of_a_question_is_not_always_an_answer() -> None:
    driver = Sending()
    async with flying(driver) as trips:
        asked = trips.ask(60.0)
        driver.sent[0].set_exception(ConnectionResetError())
        assert (await asked).code == "refused"
        asked = trips.ask(60.0)
        driver.sent[1].cancel()
        await eventually(lambda: len(driver.sent) == 3)
        driver.sent[2].set_result(None)
        assert (await asked).code == "ok"


async def test_no_answer_for_long_is_a_result() -> None:
    async with flying(Held()) as trips:
        assert (await trips.ask(SLOW)).code == "timeout"
        assert trips.last is not None
        assert trips.last.code == "timeout"


async def test_an_answer_that_came_while_the_event_loop_was_blocked_counts(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url)
    ping = make_ping_asgi(broker, timeout=0.3)
    async with broker:
        assert await status(ping) == 204
        trips = run_of(broker).round_trips
        asked = trips.ask(0.3)
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 (that is the fault)
        assert (await asked).code == "ok"


async def test_one_that_gives_up_late_is_not_listened_to() -> None:
    class Stubborn(Held):
        async def check(self) -> Code:
            try:
                return await super().check()
            except asyncio.CancelledError:
                return "ok"

    driver = Stubborn()
    trips = RoundTrips(driver)
    waiting = trips.ask(60.0)
    await eventually(lambda: driver.asked == 1)
    await trips.give_up()
    assert (await waiting).code == "timeout"
    assert trips.last is None
    assert trips.last_ok == 0


async def test_nobody_asks_anew_for_nobody() -> None:
    """As at the end of an event loop, which cancels all tasks but no timers."""
    driver = Held()
    async with flying(driver) as trips:
        assert (await trips.ask(0.01)).code == "timeout"
        task = trips._asking  # noqa: SLF001 (nobody else has it)
        assert task is not None
        # No timer runs either, while the round trip is out.
        await eventually(lambda: not trips._ticking)  # noqa: SLF001 (as above)
        assert not task.done()
        task.cancel()
        await asyncio.wait((task,))
        assert driver.asked == 1
        # Whoever asks then, does.
        driver.go_on.set()
        assert (await trips.ask(60.0)).code == "ok"
        assert driver.asked == 2


async def test_probes_in_another_thread(nats: NatsServer) -> None:
    """Such as a server of their own for the probes: the client is not theirs to use."""
    broker = NatsBroker(nats.url)
    handled: set[int] = set()

    @broker.subscriber("numbers")
    async def handle(number: int) -> None:
        handled.add(number)

    lifespan = BrokerLifespan(broker)
    ready = make_readiness_asgi(lifespan)
    answers: list[int] = []

    async def ask() -> None:
        answers.extend([await status(ready) for _ in range(20)])

    async with lifespan:
        thread = threading.Thread(target=asyncio.run, args=(ask(),))
        thread.start()
        while thread.is_alive():
            answers.append(await status(ready))
        await broker.publish(1, "numbers")
        await eventually(lambda: 1 in handled)
        nats.freeze()
        trips = run_of(broker).round_trips
        late = asyncio.create_task(asyncio.to_thread(asyncio.run, answer(trips, 0.1)))
        assert (await late).code == "timeout"
        nats.thaw()
    assert set(answers) == {204}


async def test_a_bare_broker_may_be_asked_from_one_event_loop_after_another() -> None:
    trips = RoundTrips(Ready())
    for _ in range(2):
        assert (await asyncio.to_thread(asyncio.run, answer(trips, 5.0))).code == "ok"
    assert (await trips.ask(5.0)).code == "ok"


async def test_the_event_loop_that_is_asked_from_another_one_ends_just_then() -> None:
    trips = RoundTrips(Ready())
    runs = threading.Event()
    home = asyncio.new_event_loop()

    def live() -> None:
        trips.live_in(home)
        home.call_soon(runs.set)
        home.run_forever()
        home.close()

    thread = threading.Thread(target=live)
    thread.start()
    assert await asyncio.to_thread(runs.wait, 10.0)
    # One that goes away before it was asked leaves nothing behind.
    trips.ask(5.0).cancel()
    asked = trips.ask(5.0)
    home.call_soon_threadsafe(home.stop)
    thread.join()
    assert (await asked).code == "ok"


async def test_a_lifespan_belongs_to_one_event_loop(nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(nats.url))
    async with lifespan:
        with pytest.raises(SetupError, match="This lifespan runs in another event loop: give each"):
            await asyncio.to_thread(asyncio.run, lifespan.enter())
    async with lifespan:
        pass


def test_a_lifespan_that_was_not_left_says_so(nats: NatsServer) -> None:
    lifespan = BrokerLifespan(NatsBroker(nats.url))
    loop = asyncio.new_event_loop()

    async def abandon() -> None:
        await lifespan.enter()
        # What the end of an event loop would find.
        await lifespan.leave()
        lifespan._entered = 1  # noqa: SLF001 (as if it had not been left)

    loop.run_until_complete(abandon())
    loop.close()
    with pytest.raises(SetupError, match="was not left when its event loop ended"):
        asyncio.run(lifespan.enter())


async def test_what_is_found_where_the_client_is_not_any_more_does_not_count() -> None:
    driver = Held()
    trips = RoundTrips(driver)
    waiting = trips.ask(0.2)
    await eventually(lambda: driver.asked == 1)
    other = asyncio.new_event_loop()
    trips.live_in(other)
    other.close()
    driver.go_on.set()
    assert (await waiting).code == "timeout"
    assert trips.last is None


async def test_who_asks_all_the_time_does_not_keep_a_client_from_coming_back(nats: NatsServer) -> None:
    broker = NatsBroker(nats.url, reconnect_time_wait=0)
    async with BrokerLifespan(broker):
        ping = make_ping_asgi(broker)
        nats.stop()
        await eventually(lambda: broker.connection.is_reconnecting)
        nats.start()
        async with asyncio.timeout(30):
            while await status(ping) != 204:
                ...


async def test_a_client_that_raises_when_it_is_looked_at_keeps_no_one_from_a_deadline() -> None:
    raised: list[object] = []

    class Raising(Held):
        def down(self) -> Code | None:
            if self.asked and not raised:
                raised.append(None)
                raise RuntimeError
            return None

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with flying(Raising()) as trips:
        for _ in range(2):
            async with asyncio.timeout(5):
                assert (await trips.ask(0.1)).code == "timeout"
    assert [type(error) for error in told] == [RuntimeError]


async def test_many_who_wait_let_others_have_their_turn() -> None:
    driver = Held()
    turns: list[int] = []
    async with flying(driver) as trips:
        waiting = [trips.ask(60.0) for _ in range(120)]
        await eventually(lambda: driver.asked == 1)
        driver.go_on.set()
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0)
            turns.append(sum(task.done() for task in waiting))
    steps = {later - earlier for earlier, later in itertools.pairwise([0, *turns])} - {0}
    assert steps == {50, 20}
    assert {task.result().code for task in waiting} == {"ok"}


@pytest.mark.parametrize("blocked", [0.03, 0.1])
async def test_a_deadline_comes_in_an_event_loop_that_is_always_late(blocked: float) -> None:
    async with flying(Held()) as trips:
        turns = 0
        asked = trips.ask(0.05)
        while not asked.done():
            time.sleep(blocked)  # noqa: ASYNC251 (that is the fault)
            # Timers that are due run now, once.
            await asyncio.sleep(0)
            turns += 1
        assert (await asked).code == "timeout"
    # One turn begins the round trip, one is forgiven for being late, and one tells.
    assert turns <= 6


async def test_nobody_waits_less_than_asked_for() -> None:
    waited: list[float] = []

    async def ask(trips: RoundTrips) -> None:
        begin = time.monotonic()
        assert (await trips.ask(0.05)).code == "timeout"
        waited.append(time.monotonic() - begin)

    async with flying(Held()) as trips, asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(ask(trips))
            await asyncio.sleep(0.001)
    assert min(waited) >= 0.05


async def test_brokers_asked_from_another_thread_share_the_deadline(
    nats_factory: NatsFactory,
) -> None:
    servers = [nats_factory() for _ in range(3)]
    brokers = [NatsBroker(server.url) for server in servers]
    lifespan = BrokerLifespan(*brokers, shutdown_timeout=1.0)
    ready = make_readiness_asgi(lifespan, timeout=0.5)
    async with lifespan:
        assert await asyncio.to_thread(asyncio.run, status(ready)) == 204
        for server in servers:
            server.freeze()
        begin = time.monotonic()
        assert await asyncio.to_thread(asyncio.run, status(ready)) == 503
        assert time.monotonic() - begin < 1.0
        for server in servers:
            server.thaw()
