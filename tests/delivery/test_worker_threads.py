"""How many threads a worker process has: the bulkhead between channels."""

from __future__ import annotations

import pytest

from delivery.broker import QUEUES, queues_of, threads_for
from followers.choices import VENDOR_CHANNELS


@pytest.mark.parametrize(
    ("queues", "channels", "threads"),
    [
        (QUEUES, VENDOR_CHANNELS, 51),  # Three priorities of two fan-outs and three batches for each of five channels.
        (QUEUES, ("fcm",), 16),
        (QUEUES, (), 7),
        (queues_of("critical"), ("fcm", "sms"), 9),
        (["fan_out_high"], ("fcm",), 2),
        (["deliver_sms_high"], ("fcm",), 1),
    ],
)
def test_a_thread_for_each_batch_in_hand_and_one_for_all_closed_channels(
    queues: list[str], channels: tuple[str, ...], threads: int
) -> None:
    assert threads_for(queues, channels) == threads
