"""What can go wrong with the dev stack. Every message is meant to be read by a person as it is."""

from pathlib import Path

LOG_TAIL_LINES = 20


class DevstackError(Exception):
    """Base of everything the dev stack raises on purpose."""


class AlreadyRunningError(DevstackError):
    """Another process runs its servers on the same state folder."""


class StartCancelledError(DevstackError):
    """The start was given up, because the stack is being stopped."""


class DownloadError(DevstackError):
    """A server's jars could not be fetched; the next start tries again."""


class ServerFailedError(DevstackError):
    """A server did not come up, or ended by itself.

    Parameters:
      server: its name.
      reason: the rest of the sentence that begins with the name ("ended with status 1 …").
      log_path: its log; the last lines become part of the message.
    """

    def __init__(self, server: str, reason: str, log_path: Path) -> None:
        self.server = server
        self.reason = reason
        self.log_path = log_path
        self.log_tail = tail(log_path)
        shown = "\n".join(f"  | {line}" for line in self.log_tail) or "  | (the log is empty)"
        super().__init__(f"{server} {reason}\nThe end of {log_path}:\n{shown}")


def tail(path: Path, lines: int = LOG_TAIL_LINES) -> list[str]:
    """The last lines of a log; empty when there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]
