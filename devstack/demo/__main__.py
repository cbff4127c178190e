"""`python -m devstack.demo`: NotifyHub at work, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from devstack.commands import PROJECT_ROOT
from devstack.demo.startup import Demo
from devstack.demo.steps import steps_for
from devstack.errors import DevstackError
from devstack.signals import interrupt_on_signals

DEFAULT_FOLLOWERS = 5_000
LEAST_FOLLOWERS = 1


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit status: 0 when told to stop or the time is over, 1 when something failed."""
    launched_at = process_started_at()
    options = _parse(arguments)
    os.chdir(PROJECT_ROOT)
    output, errors = Console(), Console(stderr=True)
    interrupt_on_signals()
    try:
        with Demo(options.directory, options.followers, steps_for(output)) as demo:
            demo.start()
            from devstack.demo.session import run_session  # noqa: PLC0415 - Needs Django, which `start` sets up.

            try:
                run_session(demo, output, launched_at, options.seconds, options.svg)
            finally:
                output.print("Stopping …")
    except KeyboardInterrupt:
        pass  # The usual way to end it.
    except DevstackError as error:
        errors.print(f"demo: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    output.print("Stopped. Nothing is left running; the data is kept for the next start.")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devstack.demo", description=__doc__)
    parser.add_argument("--followers", type=int, default=DEFAULT_FOLLOWERS, metavar="N", help="how many (5,000)")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="stop by itself after so long; default: Ctrl-C stops"
    )
    state = Path(os.environ.get("DEVSTACK_DIR") or PROJECT_ROOT / ".devstack") / "demo"
    parser.add_argument("--directory", type=Path, default=state, help="the state folder (default: .devstack/demo)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="at the end write what was shown last as a picture")
    options = parser.parse_args(arguments)
    if options.followers < LEAST_FOLLOWERS:
        parser.error(f"--followers must be at least {LEAST_FOLLOWERS}")
    options.directory = options.directory.absolute()
    options.svg = options.svg and options.svg.absolute()
    return options


def process_started_at() -> datetime:
    """When this process was started, before Python itself was: /proc/self/stat, field 22, in ticks since boot."""
    stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    ticks = int(stat.rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(time.time() - age, UTC)


if __name__ == "__main__":
    sys.exit(main())
