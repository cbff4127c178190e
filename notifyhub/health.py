"""Is this process alive (/healthz), and is what it works with reachable (/readyz)?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from urllib.parse import urlsplit

import pymongo
import redis
from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from kafka import KafkaAdminClient
from redis.backoff import NoBackoff
from redis.retry import Retry

from delivery.kafka import connection_options, quiet_kafka
from followers.outage import KAFKA, MONGODB, QUEUE, REDIS

CHECK_SECONDS = 2.0
"""Each check ends by itself within this time; the answer does not wait longer even if one should not."""

# Threads of their own: checks that hang must not take the threads of the sockets and views.
_threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="readyz")


@never_cache
async def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as this process answers at all."""
    return HttpResponse("ok", content_type="text/plain")


@never_cache
async def readyz(request: HttpRequest) -> JsonResponse:
    """200 if everything is reachable, else 503; `away` names what is not. The causes are logged, not shown.

    `?only=mongodb,redis` asks for no more than that: an orchestrator is to take a process out only for what it cannot
    answer without. 400 for a name that is none of CHECKS.
    """
    asked = request.GET["only"].split(",") if "only" in request.GET else list(CHECKS)
    if not CHECKS.keys() >= set(asked):
        return JsonResponse({"detail": f"only takes some of {', '.join(CHECKS)}"}, status=400)
    states = await asyncio.gather(*(_is_reachable(name, CHECKS[name]) for name in asked))
    away = [name for name, reachable in zip(asked, states, strict=True) if not reachable]
    return JsonResponse({"ready": not away, "away": away}, status=503 if away else 200)


async def _is_reachable(name: str, check: Callable[[], None]) -> bool:
    running = asyncio.get_running_loop().run_in_executor(_threads, check)
    try:
        # Some slack, so that a check that ends in time by itself tells its own error.
        await asyncio.wait_for(running, CHECK_SECONDS + 0.5)
    except Exception as error:  # Whatever a driver raises, its server is not reachable.
        OUTAGES[name].away(error)
        return False
    OUTAGES[name].back()
    return True


def _check_mongodb() -> None:
    with pymongo.timeout(CHECK_SECONDS):
        cast(Any, connection).database.command("ping")


def _ping_redis(url: str) -> None:
    client = redis.Redis.from_url(
        url, socket_timeout=CHECK_SECONDS, socket_connect_timeout=CHECK_SECONDS, retry=Retry(NoBackoff(), 0)
    )
    with client:
        client.ping()


def _check_redis() -> None:
    _ping_redis(settings.REDIS_URL)


def _check_kafka() -> None:
    milliseconds = int(CHECK_SECONDS * 1000)
    options = {**connection_options(), "bootstrap_timeout_ms": milliseconds, "request_timeout_ms": milliseconds}
    with quiet_kafka():
        admin = KafkaAdminClient(**options)
        admin.close()


def _check_broker() -> None:
    if urlsplit(settings.DRAMATIQ_BROKER_URL).scheme != "sqs":
        _ping_redis(settings.DRAMATIQ_BROKER_URL)
        return
    from delivery.sqs import ping  # noqa: PLC0415  Only where it is used: boto3 takes a while to load.

    ping(CHECK_SECONDS)


OUTAGES = {"mongodb": MONGODB, "redis": REDIS, "kafka": KAFKA, "broker": QUEUE}
CHECKS: dict[str, Callable[[], None]] = {
    "mongodb": _check_mongodb,
    "redis": _check_redis,
    "kafka": _check_kafka,
    "broker": _check_broker,
}
