"""Showing the demo's start: the dev stack's own display, with more rows than servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console

from devstack.progress import LiveProgress, PlainProgress, Progress

T = TypeVar("T")


class PlainSteps(PlainProgress):
    """A line for each step that is done."""

    def ready(self, server: str, seconds: float, address: str) -> None:
        self._print(server, f"ready after {seconds:.1f} s: {address}")

    def _print(self, server: str, text: str) -> None:
        self._console.print(f"{server:<15} {text}", markup=False, highlight=False, soft_wrap=True)


def steps_for(console: Console) -> Progress:
    """Live lines if `console` is a terminal, plain ones otherwise."""
    return LiveProgress(console) if console.is_terminal else PlainSteps(console)


class ServerSteps(Progress):
    """The servers' part of the display: the stack reports to it, and somebody may wait for single servers."""

    def __init__(self, steps: Progress, on_ready: Callable[[str], None]) -> None:
        self._steps = steps
        self._on_ready = on_ready

    def step(self, server: str, text: str) -> None:
        self._steps.step(server, text)

    def ready(self, server: str, seconds: float, address: str) -> None:
        self._steps.ready(server, seconds, address)
        self._on_ready(server)

    def failed(self, server: str) -> None:
        self._steps.failed(server)


def shown(steps: Progress, name: str, work: Callable[[], tuple[T, str]]) -> T:
    """Do one step's work and show it: `work` returns its result and what to say about it."""
    began = time.monotonic()
    steps.step(name, "starting")
    try:
        result, text = work()
    except BaseException:
        steps.failed(name)
        raise
    steps.ready(name, time.monotonic() - began, text)
    return result
