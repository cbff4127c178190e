"""Ends process groups when the program that started them is gone, however it went. Run as a script, never imported.

Usage: ``python -I -S guard.py``, standard input a pipe that this program alone holds open. A line ``+PID`` adds the
group that this process leads, ``-PID`` removes it; the end of the input kills those that are left.

The kernel kills each child with it (launcher.py), but not what a child forked itself: the death signal is not
inherited by fork (``prctl(2)``), so the workers of a killed ``rundramatiq`` would go on.
"""

import os
import signal
import sys


def main() -> None:
    """Keep the list until the input ends, then kill what is on it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # It ends with its input and not before.
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue  # All of it had ended.


if __name__ == "__main__":
    main()
