"""``python -m devstack``: run the servers in the foreground until Ctrl-C or SIGTERM."""

import argparse
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from devstack.errors import DevstackError
from devstack.progress import progress_for
from devstack.servers import SERVERS
from devstack.signals import interrupt_on_signals
from devstack.stack import Stack

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DEFAULT_DIRECTORY = PROJECT_ROOT / ".devstack"


def main(arguments: list[str] | None = None) -> int:
    """Run the servers; return the exit status: 0 when told to stop, 1 when one failed or the folder is in use."""
    options = _parse(arguments)
    output, errors = Console(), Console(stderr=True)
    stack = Stack(options.directory, options.servers or tuple(SERVERS), progress_for(output))
    interrupt_on_signals()
    began = time.monotonic()
    try:
        with stack:
            seconds = time.monotonic() - began
            output.print(f"Ready in {seconds:.1f} s. Settings: {stack.env_path}  (Ctrl-C stops)", soft_wrap=True)
            stack.wait()
    except KeyboardInterrupt:
        output.print("Stopped.")
        return 0
    except DevstackError as error:
        errors.print(f"devstack: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devstack", description=__doc__)
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=f"only these of: {', '.join(SERVERS)}")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(os.environ.get("DEVSTACK_DIR") or DEFAULT_DIRECTORY),
        help="the state folder (default: $DEVSTACK_DIR, else .devstack/ in the project's root)",
    )
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.servers) - set(SERVERS))
    if unknown:
        parser.error(f"unknown server {', '.join(unknown)}; choose from {', '.join(SERVERS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
