"""A web process's one subscription: every push comes to every web process, which picks out its own sockets' frames.

One channel of the channel layer in one group, whatever the number of sockets: connecting costs no SUBSCRIBE, and a
chunk of frames is received and decoded once per process. The layer's queue for the channel is unbounded (channels_redis
bounds only its other layer), so it drops nothing; whoever takes from it must not wait for a client.

Nobody says whether a subscription works: the library sends SUBSCRIBE without waiting for the answer, and a line can
fall silent. So the process publishes probes. One that comes back shows that the subscription was in force when it was
published, and, as Redis delivers in order, that all published since the probe before has arrived.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import structlog
from channels.layers import get_channel_layer

from followers import clock
from notifications.live import END, FRAMES, GROUP, Told

PROBE = "inbox.probe"
ANSWER_SECONDS = 30
"""A probe that is not back by then will not come; what is published to a busy process may take seconds."""

logger = structlog.get_logger(__name__)


class Subscription:
    """Belongs to one event loop. `epoch` counts the losses: what was begun in an earlier one is void."""

    def __init__(
        self,
        hand_out: Callable[[Sequence[Told]], None],
        end: Callable[[bytes], None],
        works_now: Callable[[], None],
        was_lost: Callable[[], None],
    ) -> None:
        """Each of these is called in the event loop, and must return at once.

        Parameters:
          hand_out: Takes what was published.
          end: Ends the sockets of a follower.
          works_now: A probe of the present epoch came back.
          was_lost: The subscription was lost and is back. To be answered by `doubt`.
        """
        self._layer: Any = get_channel_layer()
        self._layer.resubscribed.append(was_lost)
        self._hand_out = hand_out
        self._end = end
        self._works_now = works_now
        self._process = os.urandom(12)
        self._channel: str | None = None
        self._listening: asyncio.Task[None] | None = None
        self._joining = asyncio.Lock()
        # Not the loop's own pool: in a storm of reads, probes and with them the renewals of presence would queue there.
        self._thread = ThreadPoolExecutor(1, "probe")
        self._waiting_since = 0.0  # On the event loop's clock.
        self.epoch = 0
        self.works = False
        """Whether a probe of this epoch has come back."""
        self.heard_until = clock.now()
        """What was published before that has arrived, or was already lost in an earlier epoch."""

    async def join(self) -> None:
        """Begins to listen, unless it does. Raises redis.RedisError."""
        async with self._joining:
            if self._listening is not None and not self._listening.done():
                return
            if self._channel is None:
                self._channel = await self._layer.new_channel()
            await self._layer.group_add(GROUP, self._channel)
            # A context of its own: not the correlation id of the socket that happened to be the first.
            self._listening = asyncio.create_task(self._listen(self._channel), context=contextvars.Context())
            self._wait_afresh()

    async def join_again(self) -> None:
        """For a subscription that `is_deaf`: leaves and joins, as the library would not subscribe twice.

        Raises redis.RedisError.
        """
        if self._listening is not None and self._listening.done() and not self._listening.cancelled():
            logger.error("Listening for pushes ended; begun again.", exc_info=self._listening.exception())
        else:
            logger.warning("What this process publishes does not come back; subscribing again.")
        self._wait_afresh()
        await self._layer.group_discard(GROUP, self._channel)
        await self._layer.group_add(GROUP, self._channel)
        await self.join()

    def start_over(self) -> None:
        """Nobody needed the subscription, so nobody has watched it; nor has anybody missed anything."""
        self.doubt()
        self.heard_until = clock.now()
        self._wait_afresh()

    def doubt(self) -> None:
        """From now on only a probe that is still to be published can show that the subscription works."""
        self.epoch += 1
        self.works = False

    @property
    def is_deaf(self) -> bool:
        """Whether listening has ended, or no probe came back for too long. Ask at renewals, which probe each time."""
        has_ended = self._listening is not None and self._listening.done()
        return has_ended or asyncio.get_running_loop().time() - self._waiting_since > ANSWER_SECONDS

    async def probe(self) -> None:
        """Publishes a probe of this epoch; `works_now` is called when it comes back. Raises redis.RedisError."""
        probe = {"type": PROBE, "process": self._process, "epoch": self.epoch, "at": clock.now().timestamp()}
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._layer.publish_many, [(GROUP, probe)])

    async def _listen(self, channel: str) -> None:
        while True:
            message = await self._layer.receive(channel)
            if message["type"] == FRAMES:
                self._hand_out(message["frames"])
            elif message["type"] == END:
                self._end(message["follower"])
            elif message["type"] == PROBE and message["process"] == self._process:
                self._has_come_back(message["epoch"], message["at"])
            await asyncio.sleep(0)  # These frames are sent before the next chunk is looked at.

    def _has_come_back(self, epoch: int, at: float) -> None:
        self._wait_afresh()
        if epoch == self.epoch:
            self.works = True
            self.heard_until = max(self.heard_until, datetime.fromtimestamp(at, UTC))
            self._works_now()

    def _wait_afresh(self) -> None:
        self._waiting_since = asyncio.get_running_loop().time()
