"""Turns itself into a server that cannot outlive the dev stack. Executed as a script, never imported.

Usage: ``python -I -S launcher.py PARENT_PID COMMAND [ARGUMENT …]``

It asks the kernel to kill this process when its parent dies (``prctl(2)``, ``PR_SET_PDEATHSIG``), then becomes the
server by ``exec``, which keeps that request, the process id and the start time. The obvious place for the call,
subprocess's ``preexec_fn``, runs Python between fork and exec and can deadlock in a program with threads; a program
of its own cannot. The signal is SIGKILL, because a server that is busy or stuck must go as well; each of them
recovers from it.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Ask for the death signal, then become the server."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # It died before the request was made, so no signal will ever come.
        sys.exit("the dev stack ended before this server was started")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.execv(command[0], command)  # noqa: S606 - No shell is wanted.


if __name__ == "__main__":
    main()
