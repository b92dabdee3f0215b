"""What NATS subscriptions can be asked, and how they are ended without losing a message.

nats-py has no public way for most of this: the private attributes that are used are its own.
"""
# ruff: noqa: SLF001

import asyncio
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.errors import FetchTimeoutError

from .handlers import finished

NEVER = 365 * 24 * 60 * 60
"""Seconds that a round trip may take.

nats-py cancels the future of one that timed out, and when the late PONG arrives its read loop dies on it: the
flag `is_connected` stays true, and no message comes in ever again.
"""

_ENDINGS = ("408", "408", "408", "503")
"""The server's ways to end a fetch, as often as nats-py's fetch() has to read them.

One for many messages waits three times at most, one for a single message goes on waiting after a 408.
"""


class Pull:
    """A pull subscription whose fetch() can be ended, and which does not ask a closed client.

    Args:
        subscription: nats-py's subscription.
    """

    def __init__(self, subscription: JetStreamContext.PullSubscription) -> None:
        self.consumer_info = subscription.consumer_info
        self.unsubscribe = subscription.unsubscribe
        self._fetch = subscription.fetch
        self._stream = subscription._stream
        self._consumer = subscription._consumer
        self._sub = subscription._sub
        self._ending = False
        self._asked = False
        self._empty = asyncio.Event()

    async def fetch(self, batch: int, timeout: float | None) -> list[Msg]:  # noqa: ASYNC109 (nats-py's signature)
        """Return messages, as nats-py's method does."""
        if self._sub._conn.is_closed:
            # nats-py would raise at once, FastStream ask again at once, and the event loop do nothing else.
            await _until_cancelled()
        if self._ending:
            return await self._rest(batch)
        try:
            return await self._fetch(batch=batch, timeout=timeout)
        except Exception:
            if not self._ending:
                raise
            # Who collects a batch keeps what he has at this error, and only at this one.
            raise FetchTimeoutError from None

    async def _rest(self, batch: int) -> list[Msg]:
        """Return what was delivered already."""
        queue = self._sub._pending_queue
        messages: list[Msg] = []
        while len(messages) < batch and not queue.empty():
            message = queue.get_nowait()
            if not JetStreamContext.is_status_msg(message):
                messages.append(message)
        if messages:
            return messages
        if self._asked:
            self._empty.set()
            await _until_cancelled()
        # Who collects a batch handles now what he has, and asks once more.
        self._asked = True
        raise FetchTimeoutError

    async def end(self, tasks: "list[asyncio.Task[Any]]") -> None:
        """Take nothing more from the server, and wait until what it has sent is in the handlers' hands.

        Args:
            tasks: The subscriber's tasks: without them nobody will handle the rest.
        """
        self._ending = True
        client = self._sub._conn
        # Not unsubscribe(): that forgets what is on its way.
        await client._send_unsubscribe(self._sub._id)
        await client.rtt(NEVER)
        for status in _ENDINGS:
            self._sub._pending_queue.put_nowait(Msg(client, headers={"Status": status}))
        empty = asyncio.create_task(self._empty.wait())
        try:
            if alive := [task for task in tasks if not task.done()]:
                await asyncio.wait((empty, *alive), return_when=asyncio.FIRST_COMPLETED)
        finally:
            empty.cancel()


async def _until_cancelled() -> None:
    await asyncio.Event().wait()


def adopt(subscriber: Any) -> None:
    """Put a `Pull` in front of the subscription of a pull subscriber that was started."""
    if isinstance(subscriber.subscription, JetStreamContext.PullSubscription):
        subscriber.subscription = Pull(subscriber.subscription)


def jetstream_of(subscriber: Any) -> Any:
    """Return a subscriber's JetStream subscription, if it has one."""
    # Watchers of key-value and object stores keep theirs to themselves.
    watcher = getattr(subscriber.subscription, "obj", None)
    subscription = subscriber.subscription if watcher is None else watcher._sub
    return subscription if hasattr(subscription, "consumer_info") else None


def subscription_of(subscriber: Any) -> Any:
    """Return the subscription that messages come in by, if there is one."""
    subscription = jetstream_of(subscriber) or subscriber.subscription
    # A JetStream subscription is one around another.
    return getattr(subscription, "_sub", subscription)


def reads(subscriber: Any) -> bool | None:
    """Return whether nats-py's task that calls the subscriber back is alive; None if there is none."""
    task = getattr(subscription_of(subscriber), "_wait_for_msgs_task", None)
    return None if task is None else not task.done()


def read_again(subscriber: Any) -> bool:
    """Replace that task, if it has ended; return whether it was replaced.

    A handler that raises CancelledError ends it, and what waits in the subscription's queue would be lost.
    """
    subscription = subscription_of(subscriber)
    if reads(subscriber) is not False or subscription._closed:
        return False
    subscription._start(subscription._conn._error_cb)
    if (around := jetstream_of(subscriber)) is not None:
        # It has a copy, and ends what the copy is.
        around._wait_for_msgs_task = subscription._wait_for_msgs_task
    return True


async def drain(subscriber: Any) -> None:
    """Unsubscribe, and wait until what was delivered is handled."""
    read_again(subscriber)
    adopt(subscriber)
    subscription = subscriber.subscription
    if isinstance(subscription, Pull):
        await subscription.end(subscriber.tasks)
    elif isinstance(subscription, Subscription):
        # A drained subscription cannot be unsubscribed again: stop() must not find it.
        subscriber.subscription = None
        await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py left it untyped
    else:
        # The broker's own stop() knows what to do with watchers of key-value and object stores.
        return
    if hasattr(subscriber, "limiter"):
        await finished(subscriber)
