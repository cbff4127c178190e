"""One JSON object a line, from every process, for our own log lines and for the libraries'."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import structlog
from pymongo.errors import ConnectionFailure
from redis.exceptions import RedisError

from followers.outage import MONGODB, QUEUE, REDIS
from followers.spans import name_span
from notifyhub.masking import mask

SHARED_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    structlog.processors.format_exc_info,
]


class OutageLines(logging.Filter):
    """Drops what libraries say at every try while a server is away, and says it once an outage instead."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if record.name.startswith("dramatiq.worker") and str(record.msg).startswith(QUEUE_LINES):
            QUEUE.away(record.args[-1] if isinstance(record.args, tuple) and record.args else record.getMessage())
            return False
        if record.name.startswith("channels_redis") and isinstance(error, RedisError | OSError):
            REDIS.away(error)
            return False
        if getattr(record, "status_code", None) == HTTPStatus.SERVICE_UNAVAILABLE:
            return False  # Django's line for each answer of /readyz, which notes the outage itself.
        if isinstance(error, ConnectionFailure):
            MONGODB.away(error)
            if record.name.startswith("dramatiq.worker"):
                return False  # A batch that could not be worked on for so long; it wakes up.
            record.exc_info = None  # The line stays, as it names the request; its traceback tells nothing.
        return True


QUEUE_LINES = ("Consumer encountered a connection error", "Failed to post_process_message", "Failed to requeue")
"""The beginnings of what Dramatiq's workers say of a queue that is away."""


def logging_config(level: str, names_spans: bool = False) -> dict[str, Any]:
    """Django's LOGGING: structlog renders its own lines and those of the standard library alike.

    With `names_spans` each carries the `trace_id` and the `span_id` of where it was said.
    Raises nothing for a wrong level; `logging` names it when the configuration is applied.
    """
    shared = [*SHARED_PROCESSORS, name_span] if names_spans else SHARED_PROCESSORS
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping().get(level.upper(), 20)),
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": shared,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.EventRenamer("message"),
                    mask,
                    structlog.processors.JSONRenderer(),
                ],
            }
        },
        "filters": {"outages": {"()": OutageLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["outages"]}},
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # These speak of every message or connection at INFO; their warnings are worth hearing.
            "kafka": {"level": "WARNING"},
            "pymongo": {"level": "WARNING"},
            "botocore": {"level": "WARNING"},
            "dramatiq": {"level": "WARNING"},
            "opentelemetry.exporter": {"level": "CRITICAL"},  # An outage is said by notifyhub/tracing.py, once.
            # uvicorn sets its own handlers up before it loads the application; without them its lines are ours, too.
            **{name: {"handlers": [], "propagate": True} for name in ("uvicorn", "uvicorn.error", "uvicorn.access")},
        },
    }
