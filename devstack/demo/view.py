"""The demo on a terminal: links, trades as they come in, alerts per channel, queues and processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from delivery.choices import BreakerStatus
from devstack.demo.figures import ChannelFigures, ProcessFigures, Snapshot
from devstack.demo.outcomes import RETRYING, TradeFigures
from followers.choices import Channel
from followers.clock import as_utc
from notifications.choices import DeliveryState, Priority

ACCENT = "bright_cyan"
DIM = "grey58"
TRADES_SHOWN = 8
ROWS_BESIDE_TRADES = 33
"""Everything but the trades themselves; a lower terminal shows fewer of them, and then no processes."""

PROCESS_ROWS = 12
BLOCKS = "▁▂▃▄▅▆▇█"
BAR_WIDTH = 8
ACTIONS = {
    "OPEN": "bold #0d1117 on green3",
    "ADD": "bold green3",
    "REDUCE": "bold orange1",
    "CLOSE": "bold white on red3",
}
CURRENCIES = {"INR": "₹", "USD": "$", "USDT": "₮"}
CHANNEL_COLOURS = {
    Channel.IN_APP: "bright_cyan", Channel.APNS: "grey85", Channel.FCM: "orange1", Channel.SMS: "bright_red",
    Channel.DISCORD: "medium_purple1", Channel.ONESIGNAL: "hot_pink",
}  # fmt: skip
SHORT_LABELS = {Channel.APNS: "APNs", Channel.FCM: "FCM"}
COLUMNS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("queued", (DeliveryState.QUEUED,), "yellow"),
    ("retrying", (RETRYING,), "orange1"),
    ("sent", (DeliveryState.SENT,), "green3"),
    ("delivered", (DeliveryState.DELIVERED,), "bold green3"),
    ("failed", (DeliveryState.FAILED,), "red"),
    ("skipped", (DeliveryState.SKIPPED,), DIM),
    ("other", (DeliveryState.UNKNOWN, DeliveryState.EXPIRED, DeliveryState.CANCELLED), "magenta"),
)
"""The deliveries' states as columns."""


BREAKER_STYLES = {
    BreakerStatus.CLOSED: "green3",
    BreakerStatus.HALF_OPEN: "yellow",
    BreakerStatus.OPEN: "bold white on red3",
}


@dataclass(frozen=True, slots=True)
class Links:
    """Where to look, and how to get in."""

    web_url: str
    user: str
    password: str
    inboxes: dict[str, str]  # What is special about a follower → external id.


def picture(snapshot: Snapshot, links: Links, height: int) -> RenderableType:
    """Everything, for a terminal of so many lines."""
    trades = max(3, min(TRADES_SHOWN, height - ROWS_BESIDE_TRADES))
    parts: list[RenderableType] = [_header(snapshot, links), _trades(snapshot, trades), _channels(snapshot)]
    if height >= ROWS_BESIDE_TRADES + 3:
        bottom = Table.grid(expand=True, padding=0)
        bottom.add_column(ratio=5)
        bottom.add_column(ratio=6)
        bottom.add_row(_queues(snapshot), _processes(snapshot.processes))
        parts.append(bottom)
    return Group(*parts)


# --- Header ---------------------------------------------------------------------------------------------------------
def _header(snapshot: Snapshot, links: Links) -> Panel:
    minutes, seconds = divmod(int(snapshot.seconds), 60)
    figures = Text.assemble(
        (f"{snapshot.rate:,.0f}", f"bold {ACCENT}"), (" alerts/s  ", DIM), (sparkline(snapshot.history), ACCENT),
        ("   ", ""), (f"{snapshot.sent:,}", "bold"), (" alerts sent", DIM),
        ("   ", ""), (f"{snapshot.published:,}", "bold"), (" trades", DIM),
    )  # fmt: skip
    if snapshot.first_alert_seconds is not None:
        figures.append("   first alert ", DIM).append(f"{snapshot.first_alert_seconds:.1f} s", "bold")
        figures.append(" after the start", DIM)
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style=DIM, justify="right")
    rows.add_column()
    rows.add_row("Admin", Text.assemble(_link(f"{links.web_url}/admin/"), ("   ", ""), *_login(links)))
    inboxes = Text()
    for number, (what, follower) in enumerate(links.inboxes.items()):
        inboxes.append("" if number == 0 else "\n").append_text(Text.assemble(_link(inbox_url(links, follower))))
        inboxes.append(f"  {what}", DIM)
    rows.add_row("Inboxes", inboxes)
    title = Text.assemble((" NotifyHub ", f"bold #0d1117 on {ACCENT}"), (f" demo · {minutes}:{seconds:02} ", "bold"))
    stop = Text(" Ctrl-C to stop ", style=DIM)
    return Panel(
        Group(figures, rows), title=title, title_align="left", subtitle=stop, subtitle_align="right",
        border_style=ACCENT, box=box.ROUNDED,
    )  # fmt: skip


def _login(links: Links) -> tuple[tuple[str, str], ...]:
    return ((links.user, "bold"), (" / ", DIM), (links.password, "bold"))


def inbox_url(links: Links, follower: str) -> str:
    return f"{links.web_url}/demo/inbox/{follower}/"


def _link(url: str) -> tuple[str, str]:
    return url, f"underline {ACCENT} link {url}"


# --- Trades ---------------------------------------------------------------------------------------------------------
def _trades(snapshot: Snapshot, rows: int) -> Panel:
    table = _table()
    table.add_column("time", style=DIM)
    table.add_column("trader", no_wrap=True, ratio=3)
    table.add_column("trade", justify="center", width=8)
    table.add_column("instrument", no_wrap=True, style="bold", ratio=3)
    table.add_column("quantity", justify="right", ratio=2)
    table.add_column("price", justify="right", ratio=2)
    table.add_column("followers reached", justify="right", no_wrap=True, width=26)
    table.add_column("fan-out", justify="right", width=8)
    for trade in snapshot.trades[:rows]:
        event = trade.event
        table.add_row(
            as_utc(event["executed_at"]).astimezone().strftime("%H:%M:%S"),
            snapshot.trader_names.get(event["trader_external_id"], event["trader_external_id"]),
            Text(f" {event['action']} ", style=ACTIONS.get(event["action"], "bold")),
            instrument(event),
            _number(event["quantity"].to_decimal()),
            f"{CURRENCIES.get(event['currency'], '')}{_number(event['price'].to_decimal(), 2)}",
            _reach(trade, snapshot.audiences.get(event["trader_external_id"], 0)),
            _fan_out(event),
        )
    for _ in range(rows - len(snapshot.trades)):
        table.add_row(*[""] * 8)
    return _panel(table, "Trades")


def instrument(event: dict[str, Any]) -> str:
    """An event's symbol, with what tells a derivative from its underlying."""
    parts = [event["symbol"]]
    if event["strike"] is not None:
        parts += [_number(event["strike"].to_decimal()), event["right"]]
    elif event["product_type"] == "FUTURES":
        parts.append("FUT")
    return " ".join(parts)


def _reach(trade: TradeFigures, audience: int) -> Text:
    """Reached of those who are to have an alert; skipped followers are not among them."""
    wanted = max(audience - trade.skipped, 0)
    share = trade.reached / wanted if wanted else 1.0
    colour = "green3" if share >= 0.98 else "yellow"
    filled = min(BAR_WIDTH, round(share * BAR_WIDTH))
    return Text.assemble(
        (f"{trade.reached:,}", f"bold {colour}"), (f" / {wanted:,} ", DIM),
        ("━" * filled, colour), ("━" * (BAR_WIDTH - filled), "grey27"),
    )  # fmt: skip


def _fan_out(event: dict[str, Any]) -> Text:
    if event["fanned_out_at"] is None:
        return Text("…", style="yellow")
    taken = (event["fanned_out_at"] - event["received_at"]).total_seconds() * 1000
    return Text(f"{taken:,.0f} ms", style=_speed(taken, 300, 1000))


# --- Channels -------------------------------------------------------------------------------------------------------
def _channels(snapshot: Snapshot) -> Panel:
    table = _table()
    table.add_column("channel", no_wrap=True)
    for name, _, _ in COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("per second", justify="right", no_wrap=True, min_width=24)
    for name in ("p50", "p95", "p99"):
        table.add_column(name, justify="right", no_wrap=True, min_width=7)
    table.add_column("breaker", no_wrap=True)
    for figures in snapshot.channels:
        table.add_row(*_channel_row(figures))
    return _panel(
        Group(table, _notes(snapshot)), "Alerts", "p50 p95 p99: from the trade to the vendor's acceptance, last minute"
    )


def _channel_row(figures: ChannelFigures) -> list[Text]:
    colour = CHANNEL_COLOURS[figures.channel]
    row = [Text.assemble(("● ", colour), SHORT_LABELS.get(figures.channel, figures.channel.label))]
    for _, states, style in COLUMNS:
        count = sum(figures.states.get(state, 0) for state in states)
        row.append(Text(f"{count:,}", style=style) if count else Text("·", style="grey35"))
    row.append(Text.assemble((sparkline(figures.history[-16:]), colour), (f" {figures.rate:6,.0f}", "bold")))
    row += [
        Text("–", style="grey35") if ms is None else Text(duration(ms), style=_speed(ms, 1000, 3000))
        for ms in figures.latencies
    ]
    return [*row, _breaker(figures.breaker)]


def _breaker(status: BreakerStatus | None) -> Text:
    if status is None:
        return Text("–", style="grey35")
    return Text(status.label.lower(), style=BREAKER_STYLES[status])


def _notes(snapshot: Snapshot) -> Text:
    """Whom an alert made no sense for, and what the vendors answered instead of accepting."""
    skipped = snapshot.sums.skipped.most_common(3)
    errors = snapshot.sums.errors.most_common(4)
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("skipped ", DIM)
    text.append("  ".join(f"{reason} {count:,}" for reason, count in skipped) or "nobody", "grey70")
    text.append("    troubles ", DIM)
    text.append("  ".join(f"{channel} {code} {count:,}" for (channel, code), count in errors) or "none", "grey70")
    return text


# --- Queues and processes -------------------------------------------------------------------------------------------
def _queues(snapshot: Snapshot) -> Panel:
    table = _table()
    table.add_column("hints in the queue", no_wrap=True)
    for priority in Priority:
        table.add_column(priority.value, justify="right")
    for kind, label in (("fan_out", "fan-out"), ("deliver", "deliver")):
        row: list[str | Text] = [label]
        for priority in Priority:
            depth = None if snapshot.queues is None else _depth(snapshot.queues, kind, priority)
            row.append(Text("away", style="red") if depth is None else _count(depth))
        table.add_row(*row)
    waits = Table.grid(padding=(0, 2), expand=True)
    waits.add_column(ratio=1)
    waits.add_column(justify="right")
    waits.add_row("batches due", _count(snapshot.due_batches))
    waits.add_row("retries within a minute", _count(snapshot.due_retries))
    waits.add_row("trades on Kafka, not yet taken in", _count(snapshot.waiting_on_kafka))
    return _panel(
        Group(table, Text(), Text("waiting in MongoDB and Kafka", style=DIM), waits),
        "Work waiting",
        height=PROCESS_ROWS,
    )


def _depth(queues: dict[str, int], kind: str, priority: Priority) -> int:
    """Hints of one kind and priority, over all channels."""
    of_kind = (depth for queue, depth in queues.items() if queue.startswith(kind) and queue.endswith(priority.value))
    return sum(of_kind)


def _processes(processes: Sequence[ProcessFigures]) -> Panel:
    table = _table()
    table.add_column("process", no_wrap=True)
    table.add_column("", justify="right", style=DIM)
    table.add_column("CPU", justify="right", width=6)
    table.add_column("", width=10)
    table.add_column("memory", justify="right")
    for process in processes:
        usage = process.usage
        filled = min(10, round(usage.cpu_percent / 10))
        table.add_row(
            process.name,
            f"×{usage.processes}" if usage.processes > 1 else "",
            f"{usage.cpu_percent:.0f} %",
            Text.assemble(("▪" * filled, ACCENT), ("▪" * (10 - filled), "grey23")),
            f"{usage.rss_bytes / 2**20:,.0f} MiB",
        )
    return _panel(table, "Processes", height=PROCESS_ROWS)


# --- Parts ----------------------------------------------------------------------------------------------------------
def _table() -> Table:
    return Table(box=None, expand=True, padding=(0, 1), header_style=DIM, pad_edge=False)


def _panel(content: RenderableType, title: str, note: str = "", height: int | None = None) -> Panel:
    return Panel(
        content, title=Text(f" {title} ", style="bold"), title_align="left", border_style="grey37", box=box.ROUNDED,
        subtitle=Text(f" {note} ", style=DIM) if note else None, subtitle_align="right", height=height,
    )  # fmt: skip


def sparkline(values: Sequence[float]) -> str:
    """A small chart, the highest value the full height."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return BLOCKS[0] * len(values)
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value / highest * (len(BLOCKS) - 1) + 0.5))] for value in values)


def duration(ms: float) -> str:
    return f"{ms:,.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _speed(ms: float, good: float, fair: float) -> str:
    return "green3" if ms < good else "yellow" if ms < fair else "red"


def _count(count: int) -> Text:
    return Text(f"{count:,}", style="bold yellow" if count else "grey50")


def _number(value: Decimal, least_decimals: int = 0) -> str:
    """A quantity or a price without needless zeros, thousands separated."""
    whole, _, decimals = f"{value:f}".partition(".")
    decimals = decimals.rstrip("0").ljust(least_decimals, "0")
    return f"{int(whole):,}" + (f".{decimals}" if decimals else "")
