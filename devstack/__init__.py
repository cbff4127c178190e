"""The servers NotifyHub needs, run from Python packages: no Docker, no root, nothing installed system-wide.

``python -m devstack`` runs them in the foreground; tests and the demo use :class:`Stack`. Linux only: the
guarantee that nothing is left running rests on ``prctl(PR_SET_PDEATHSIG)``.
"""

from devstack.errors import AlreadyRunningError, DevstackError, DownloadError, ServerFailedError
from devstack.stack import Stack

__all__ = ["AlreadyRunningError", "DevstackError", "DownloadError", "ServerFailedError", "Stack"]
