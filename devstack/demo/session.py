"""The running demo: publishes, watches, shows. Needs Django set up."""

from __future__ import annotations

import io
import time
from abc import ABC, abstractmethod
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.terminal_theme import TerminalTheme

from devstack.demo.database import LOGIN_NAME
from devstack.demo.figures import Sampler, Snapshot
from devstack.demo.followers import featured
from devstack.demo.startup import Demo
from devstack.demo.view import Links, duration, inbox_url, picture

TICK_SECONDS = 0.5
PLAIN_EVERY_SECONDS = 5.0
SVG_WIDTH, SVG_HEIGHT = 132, 44
SVG_THEME = TerminalTheme(
    background=(13, 17, 23),
    foreground=(230, 237, 243),
    normal=[
        (72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34),
        (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196),
    ],
    bright=[
        (110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65),
        (121, 192, 255), (210, 168, 255), (86, 212, 221), (240, 246, 252),
    ],
)  # fmt: skip


class Screen(ABC):
    """Where snapshots are shown."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def show(self, snapshot: Snapshot) -> None: ...


class LiveScreen(Screen):
    """The whole terminal, as long as the session lasts."""

    def __init__(self, console: Console, links: Links) -> None:
        self._console = console
        self._links = links
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(picture(snapshot, self._links, self._console.height), refresh=True)


class PlainScreen(Screen):
    """A line every few seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def show(self, snapshot: Snapshot) -> None:
        if snapshot.seconds >= self._next:
            self._next = snapshot.seconds + PLAIN_EVERY_SECONDS
            self._console.print(plain_line(snapshot), markup=False, highlight=False, soft_wrap=True)


def plain_line(snapshot: Snapshot) -> str:
    """The session so far in one line."""
    channels = "  ".join(
        f"{c.channel.value} {c.rate:,.0f}/s" + ("" if c.latencies[0] is None else f" p50 {duration(c.latencies[0])}")
        for c in snapshot.channels
    )
    return f"{snapshot.seconds:4.0f} s  {snapshot.published:,} trades  {snapshot.sent:,} alerts  {channels}"


def run_session(demo: Demo, console: Console, launched_at: datetime, seconds: float | None, svg: Path | None) -> None:
    """Publish and show until interrupted, or for so many seconds; then tell what was done.

    Raises:
      DevstackError: something that should run ended.
    """
    inboxes = {what: follower for what, follower in featured().items() if int(follower[2:]) <= demo.followers}
    links = Links(demo.web_url, LOGIN_NAME, demo.password, inboxes)
    sampler = Sampler(demo, launched_at)
    screen: Screen = LiveScreen(console, links) if console.is_terminal else PlainScreen(console)
    tell(console, links)
    demo.publisher.start()
    until = None if seconds is None else time.monotonic() + seconds
    snapshot = sampler.sample()
    try:
        with screen:
            while until is None or time.monotonic() < until:
                demo.check()
                snapshot = sampler.sample()
                screen.show(snapshot)
                time.sleep(TICK_SECONDS)
    finally:
        summarise(console, snapshot)
        if svg is not None:
            hidden = Links(links.web_url, links.user, "••••••••", links.inboxes)
            save_svg(svg, picture(snapshot, hidden, SVG_HEIGHT))


def tell(console: Console, links: Links) -> None:
    """Where to look and how to get in."""
    lines = [f"Admin  {links.web_url}/admin/  {links.user} / {links.password}"]
    lines += [f"Inbox  {inbox_url(links, follower)}  {what}" for what, follower in links.inboxes.items()]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def summarise(console: Console, snapshot: Snapshot) -> None:
    """What the session came to."""
    text = f"Published {snapshot.published:,} trades, sent {snapshot.sent:,} alerts in {snapshot.seconds:.0f} s."
    if snapshot.first_alert_seconds is not None:
        text += f" First alert {snapshot.first_alert_seconds:.1f} s after the start."
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def save_svg(path: Path, what: RenderableType) -> None:
    """Write what the terminal shows as a picture."""
    console = Console(
        record=True,
        width=SVG_WIDTH,
        height=SVG_HEIGHT,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(what)
    console.save_svg(str(path), title="make demo", theme=SVG_THEME)
