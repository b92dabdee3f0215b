"""The state of NATS subscriptions, and their drain without losing a message."""

import asyncio
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.errors import FetchTimeoutError

from faststream_adapters._brokers.draining import wait_handled
from faststream_adapters._compat import nats as private

_END_STATUSES = ("408", "408", "408", "503")
"""The statuses with which a server ends a fetch, as many as nats-py's fetch() must read to return.

A fetch of several messages waits at most three times. A fetch of a single message continues after a 408.
"""


class DrainablePull:
    """A pull subscription whose fetch() can be ended, and does not busy-loop on a closed client.

    Args:
        subscription: nats-py's subscription.
    """

    def __init__(self, subscription: JetStreamContext.PullSubscription) -> None:
        self.wrapped = subscription
        self.unsubscribe = subscription.unsubscribe
        core = private.inner_subscription(subscription)
        self._core = core
        self._client = private.subscription_client(core)
        self._pending = private.pending_queue(core)
        self._draining = False
        self._batch_ended = False
        self._exhausted = asyncio.Event()

    async def fetch(self, batch: int, timeout: float | None) -> list[Msg]:  # noqa: ASYNC109 (nats-py's signature)
        """Fetch messages as nats-py's method does; while draining, only those that were delivered."""
        if self._client.is_closed:
            # nats-py would raise at once and FastStream retry at once, which blocks the event loop.
            await _until_cancelled()
        if self._draining:
            return await self._take_pending(batch)
        try:
            return await self.wrapped.fetch(batch=batch, timeout=timeout)
        except Exception as error:
            if not self._draining and not isinstance(error, TimeoutError):
                raise
            # FastStream's batch subscriber keeps its collected messages only at this error. nats-py may raise
            # the TimeoutError of asyncio, which ends the subscriber's task with a traceback.
            raise FetchTimeoutError from None

    async def _take_pending(self, batch: int) -> list[Msg]:
        """Return messages that were delivered already; block when all have been handed over."""
        messages: list[Msg] = []
        while len(messages) < batch and not self._pending.empty():
            message = self._pending.get_nowait()
            if not JetStreamContext.is_status_msg(message):
                messages.append(message)
        if messages:
            return messages
        if self._batch_ended:
            self._exhausted.set()
            await _until_cancelled()
        # A batch subscriber now handles its collected messages and fetches again.
        self._batch_ended = True
        raise FetchTimeoutError

    async def drain(self, tasks: "list[asyncio.Task[Any]]") -> None:
        """Unsubscribe, and wait until the delivered messages have been passed to the handlers.

        Args:
            tasks: The subscriber's tasks; if all have ended, no message can be passed on.
        """
        self._draining = True
        await private.send_unsubscribe(self._core)
        await private.round_trip(self._client)
        for status in _END_STATUSES:
            self._pending.put_nowait(Msg(self._client, headers={"Status": status}))
        exhausted = asyncio.create_task(self._exhausted.wait())
        try:
            if alive := [task for task in tasks if not task.done()]:
                await asyncio.wait((exhausted, *alive), return_when=asyncio.FIRST_COMPLETED)
        finally:
            exhausted.cancel()


async def _until_cancelled() -> None:
    await asyncio.Event().wait()


def wrap_pull(subscriber: Any) -> None:
    """Wrap the subscription of a started pull subscriber in a `DrainablePull`; do nothing for others."""
    if isinstance(subscriber.subscription, JetStreamContext.PullSubscription):
        subscriber.subscription = DrainablePull(subscriber.subscription)


def jetstream_subscription(subscriber: Any) -> Any:
    """Return the JetStream subscription of a subscriber, or None."""
    subscription = subscriber.subscription
    if isinstance(subscription, DrainablePull):
        subscription = subscription.wrapped
    elif (watcher := getattr(subscription, "obj", None)) is not None:
        subscription = private.watcher_subscription(watcher)
    return subscription if hasattr(subscription, "consumer_info") else None


def core_subscription(subscriber: Any) -> Any:
    """Return the core subscription that receives a subscriber's messages, or None."""
    return private.inner_subscription(jetstream_subscription(subscriber) or subscriber.subscription)


def is_callback_alive(subscriber: Any) -> bool | None:
    """Return whether nats-py's task for a subscriber's callback is running; None if it has no callback."""
    task = private.callback_task(core_subscription(subscriber))
    return None if task is None else not task.done()


def restart_callback(subscriber: Any) -> bool:
    """Restart nats-py's callback task if it has ended; return whether it was restarted.

    A handler that raises CancelledError ends the task, and the queued messages would be lost.
    """
    subscription = core_subscription(subscriber)
    if is_callback_alive(subscriber) is not False or private.is_closed(subscription):
        return False
    private.restart_callback_task(subscription, jetstream_subscription(subscriber))
    return True


async def drain(subscriber: Any) -> bool:
    """Unsubscribe a subscriber, and wait until the delivered messages are handled.

    Returns:
        False for a watcher of a key-value or object store, which is not drained.
    """
    restart_callback(subscriber)
    wrap_pull(subscriber)
    subscription = subscriber.subscription
    if isinstance(subscription, DrainablePull):
        await subscription.drain(subscriber.tasks)
    elif isinstance(subscription, Subscription):
        # stop() must not unsubscribe it again: nats-py raises an error for a drained subscription.
        subscriber.subscription = None
        await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py left it untyped
    else:
        return False
    if hasattr(subscriber, "limiter"):
        await wait_handled(subscriber)
    return True
