"""`python -m bench NAME`: one benchmark on servers of its own; fails if a result is wrong."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

BENCHMARKS = (
    "end_to_end", "fan_out", "deliver", "idle_latency", "steady", "burst", "vendor_hang", "sockets", "review", "inbox",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="NotifyHub's benchmarks.")
    chosen = parser.add_subparsers(dest="name", required=True)
    for name in BENCHMARKS:
        module = importlib.import_module(f"bench.{name}")
        own = chosen.add_parser(name, help=module.__doc__, description=module.__doc__)
        own.add_argument("--rounds", type=int, default=3)
        own.add_argument("--json", type=Path, help="write the figures into this file, too")
        own.add_argument(
            "--setting",
            type=_setting,
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="another than the default",
        )
        module.add_arguments(own)
    arguments = parser.parse_args(argv)
    report = importlib.import_module(f"bench.{arguments.name}").run(arguments)
    report.print(arguments.json)
    return 0


def _setting(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
