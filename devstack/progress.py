"""Showing how a start goes on: live lines on a terminal, plain ones in a pipe, nothing in tests."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class Progress:
    """Shows nothing, and is the interface of those that do. Methods are called from several threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def begin(self, servers: Sequence[str]) -> None:
        """The named servers begin to start."""

    def step(self, server: str, text: str) -> None:
        """A server entered a phase."""

    def ready(self, server: str, seconds: float, address: str) -> None:
        """A server can be used, that long after the start began."""

    def failed(self, server: str) -> None:
        """A server did not come up; why is told by the exception."""


class PlainProgress(Progress):
    """One line for each event, for logs and pipes. A phase that only counts up is not repeated."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, str] = {}

    def step(self, server: str, text: str) -> None:
        phase = text.partition(":")[0]
        if self._last.get(server) != phase:
            self._last[server] = phase
            self._print(server, text)

    def ready(self, server: str, seconds: float, address: str) -> None:
        self._print(server, f"ready after {seconds:.1f} s on {address}")

    def failed(self, server: str) -> None:
        self._print(server, "failed")

    def _print(self, server: str, text: str) -> None:
        self._console.print(f"{server:<10} {text}", markup=False, highlight=False, soft_wrap=True)


class LiveProgress(Progress):
    """A line per server that moves while it starts and then keeps the time it took."""

    def __init__(self, console: Console) -> None:
        self._spinner = Spinner("dots", style="cyan")
        self._began = time.monotonic()
        self._rows: dict[str, tuple[str, Text, float | None]] = {}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=12.5)  # Renders at once.

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, servers: Sequence[str]) -> None:
        self._began = time.monotonic()
        self._rows = {server: ("busy", Text("waiting", style="dim"), None) for server in servers}

    def step(self, server: str, text: str) -> None:
        self._rows[server] = ("busy", Text(text, style="dim"), None)

    def ready(self, server: str, seconds: float, address: str) -> None:
        self._rows[server] = ("ready", Text(address), seconds)

    def failed(self, server: str) -> None:
        self._rows[server] = ("failed", Text("failed", style="red"), time.monotonic() - self._began)

    def _render(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(width=1)
        table.add_column(min_width=10)
        table.add_column(justify="right", min_width=7)
        table.add_column()
        marks: dict[str, RenderableType] = {
            "busy": self._spinner,
            "ready": Text("✓", style="green"),
            "failed": Text("✗", style="red"),
        }
        for server, (state, text, seconds) in list(self._rows.items()):  # Threads change it meanwhile.
            shown = time.monotonic() - self._began if seconds is None else seconds
            table.add_row(marks[state], Text(server, style="bold"), f"{shown:.1f} s", text)
        return table


def progress_for(console: Console) -> Progress:
    """Live lines if ``console`` is a terminal, plain ones otherwise."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)
