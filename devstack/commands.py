"""How NotifyHub's processes are started, and how one knows that they can be used: for whatever runs all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from devstack.children import Child

PROJECT_ROOT = Path(__file__).resolve().parents[1]
MANAGE = (sys.executable, str(PROJECT_ROOT / "manage.py"))
READY_SECONDS = 60
_CHANNELS = ("FCM", "APNS", "SMS", "DISCORD", "ONESIGNAL")
QUICK_SETTINGS = {
    "LEASE_SECONDS": "6",
    "KAFKA_SESSION_TIMEOUT_SECONDS": "6",
    "DISPATCH_INTERVAL_SECONDS": "0.2",
    "BREAKER_PAUSE_SECONDS": "1",
    **{f"{channel}_TIMEOUT_SECONDS": "3" for channel in _CHANNELS},
    **{f"{channel}_RETRY_BASE_SECONDS": "0.2" for channel in _CHANNELS},
}
"""For whoever waits for a recovery: what takes half a minute in production is over in seconds."""


def consume_trades() -> list[str]:
    return [*MANAGE, "consume_trades"]


def dispatch_due() -> list[str]:
    return [*MANAGE, "dispatch_due"]


def workers(processes: int, *priorities: str) -> list[str]:
    """Workers for the queues of these priorities; for all of them if none are named."""
    command = [*MANAGE, "rundramatiq", "--path", str(PROJECT_ROOT), "--worker-shutdown-timeout", "4000"]
    command += ["--processes", str(processes)]
    return [*command, "--priorities", *priorities] if priorities else command


def web(port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "notifyhub.asgi:application", "--app-dir", str(PROJECT_ROOT)]
    command += ["--no-access-log", "--host", "127.0.0.1", "--port", str(port), "--timeout-graceful-shutdown", "2"]
    return command


def has_said(words: str) -> Callable[[Child], bool]:
    """Whether a process has logged these words."""
    return lambda child: words in child.log_path.read_text(encoding="utf-8", errors="replace")


def answers(port: int) -> Callable[[Child], bool]:
    """Whether a web process answers on this port."""
    return lambda child: is_healthy(port)


consumes = has_said("Partitions assigned.")
dispatches = has_said("Dispatching what is due.")


def is_healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
