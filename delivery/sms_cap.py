"""How many SMS a follower gets in a day of their own time zone, counted by all workers together in Redis.

What is counted are deliveries, not attempts: a retry is let through without being counted again. Exits, and whatever
else is critical, are counted and never dropped. While Redis is away nothing is counted and nothing is dropped: an SMS
too many is better than an alert that is missing. A Redis that was emptied begins to count anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from bson import ObjectId
from django.conf import settings
from redis.exceptions import RedisError

from followers.outage import REDIS
from followers.preferences import zone_of
from followers.redis_client import client
from notifications.choices import EXITS, Priority

Document = dict[str, Any]

TIMEOUT_SECONDS: Final = 1.0
KEPT_SECONDS: Final = 2 * 86_400

# KEYS: a set per follower and day. ARGV: the cap, seconds to keep a set, then per key: the delivery, 1 if it is sent
# whatever the count. Returns 1 per key for what may be sent, else 0.
COUNT_SCRIPT: Final = """
local answer = {}
for i, key in ipairs(KEYS) do
    local delivery, critical = ARGV[2 * i + 1], ARGV[2 * i + 2]
    answer[i] = 1
    if redis.call('SISMEMBER', key, delivery) == 0 then
        if critical == '1' or redis.call('SCARD', key) < tonumber(ARGV[1]) then
            redis.call('SADD', key, delivery)
            redis.call('EXPIRE', key, ARGV[2])
        else
            answer[i] = 0
        end
    end
end
return answer
"""


def over_cap(rows: Sequence[tuple[Document, Document, Document]], now: datetime) -> set[ObjectId]:
    """Counts these SMS and returns those notifications whose follower has had SMS_DAILY_CAP of them today.

    Parameters:
      rows: Notifications, each with its delivery by SMS and its follower (_id, timezone).
      now: Aware UTC.
    """
    if not rows:
        return set()
    keys: list[str] = []
    arguments: list[str | int] = []
    for row, delivery, follower in rows:
        day = now.astimezone(zone_of(str(follower.get("timezone") or "UTC"))).date()
        keys.append(f"{settings.QUEUE_NAMESPACE}:sms_day:{follower['_id']}:{day.isoformat()}")
        is_critical = row["action"] in EXITS or row["priority"] == Priority.CRITICAL
        arguments += [f"{row['_id']}:{delivery['endpoint']}", int(is_critical)]
    count = client(TIMEOUT_SECONDS).register_script(COUNT_SCRIPT)
    try:
        allowed = count(keys=keys, args=[settings.SMS_DAILY_CAP, KEPT_SECONDS, *arguments])
    except RedisError as error:
        REDIS.away(error)
        return set()
    REDIS.back()
    return {row["_id"] for (row, _, _), is_allowed in zip(rows, allowed, strict=True) if not is_allowed}
