"""`python -m devstack.vendors`: run the sandbox vendors until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from devstack.vendors.credentials import ENVIRONMENT_FILE, write_environment
from devstack.vendors.process import die_with_parent
from devstack.vendors.sandbox import Sandbox

logger = logging.getLogger("devstack.vendors")

DEFAULT_DIRECTORY = Path(os.environ.get("DEVSTACK_DIR", ".devstack")) / "vendors"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devstack.vendors", description=__doc__)
    parser.add_argument("--directory", type=Path, default=DEFAULT_DIRECTORY, help="state, keys and vendors.env")
    parser.add_argument("--port-file", type=Path, help="where the ports are written (default DIRECTORY/ports.json)")
    parser.add_argument(
        "--resume", action="store_true", help="same ports as in the port file, and what was accepted before is kept"
    )
    parser.add_argument("--ready-fd", type=int, help="a byte is written to this descriptor once all listen")
    parser.add_argument("--parent-pid", type=int, help="end when this process, the parent, ends")
    return parser.parse_args()


async def run(sandbox: Sandbox, directory: Path, ready_fd: int | None) -> None:
    """Listen, say so, and go on until a signal."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await sandbox.listen()
    write_environment(directory, sandbox.environment)
    if ready_fd is not None:
        os.write(ready_fd, b"\n")
        os.close(ready_fd)
    logger.info("The sandbox vendors listen; their environment is in %s", directory / ENVIRONMENT_FILE)
    await stopped.wait()
    sandbox.close()


def main() -> int:
    options = arguments()
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    directory: Path = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ENVIRONMENT_FILE).unlink(missing_ok=True)
    port_file: Path = (options.port_file or directory / "ports.json").resolve()
    sandbox = Sandbox(directory, port_file, options.resume)
    uvloop.run(run(sandbox, directory, options.ready_fd))
    return 0


if __name__ == "__main__":
    sys.exit(main())
