"""`python -m devstack.chaos`: NotifyHub under fire. Exit status 0 if nothing was lost and every fault hit something."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from devstack.chaos.report import explain, table, tell
from devstack.chaos.system import Scale, System
from devstack.commands import PROJECT_ROOT
from devstack.errors import DevstackError
from devstack.signals import interrupt_on_signals

FULL = Scale(followers=400, trades_per_second=4.0)
SHORT = Scale(followers=120, trades_per_second=3.0)
SETTLE_SECONDS = 90.0
TABLE_WIDTH = 150
SERVICES = ("consume_trades", "workers", "workers-critical", "dispatch_due", "web")


def main(arguments: list[str] | None = None) -> int:
    """Run the faults asked for; return the exit status."""
    options = _parse(arguments)
    os.chdir(PROJECT_ROOT)
    output, errors = Console(), Console(stderr=True)
    if not output.is_terminal:
        output = Console(width=TABLE_WIDTH)
    interrupt_on_signals()
    try:
        return _run(options, output)
    except KeyboardInterrupt:
        errors.print("Interrupted; everything is stopped.")
        return 130
    except (DevstackError, RuntimeError) as error:
        errors.print(f"chaos: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1


def _run(options: argparse.Namespace, output: Console) -> int:
    began = time.monotonic()
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    output.print(f"Seed {seed}", highlight=False)
    scale = SHORT if options.short else FULL
    scale = replace(scale, followers=options.followers or scale.followers)
    with System(scale, seed, options.without, options.keep_logs) as system:
        system.set_up()
        # Both need Django, which `set_up` sets up.
        from devstack.chaos.faults import chosen  # noqa: PLC0415
        from devstack.chaos.run import Run  # noqa: PLC0415

        faults = chosen(options.faults, options.short, options.without)
        system.start([name for fault in faults for name in fault.needs], output.print)
        output.print(f"Everything runs after {time.monotonic() - began:.0f} s.", highlight=False)
        run = Run(system, options.settle_seconds)
        try:
            run.play(faults, lambda round_: tell(output, round_))
        finally:
            output.print(table(run.rounds))
            explain(output, run.rounds)
            if options.keep_logs:
                output.print(f"Logs: {system.logs}", soft_wrap=True)
            if options.json:
                options.json.write_text(json.dumps([r.as_json() for r in run.rounds], indent=1, default=str))
        failed = [round_.fault for round_ in run.rounds if round_.failures]
        output.print(f"{len(run.rounds)} faults in {time.monotonic() - began:.0f} s, {len(failed)} failed.")
        return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devstack.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats a run's trades and moments, as far as the machine allows")
    parser.add_argument("--faults", metavar="A,B", help="only these; an unknown name lists all")
    parser.add_argument("--followers", type=int, metavar="N", help=f"how many ({FULL.followers})")
    parser.add_argument("--short", action="store_true", help="the most important faults, in about a minute")
    parser.add_argument("--without", choices=SERVICES, default="", help="leave a process out, and see it fail")
    parser.add_argument("--settle-seconds", type=float, default=SETTLE_SECONDS, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--keep-logs", action="store_true", help="leave the state folder and its logs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
