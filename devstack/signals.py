"""Ending a foreground program in order: the first signal asks, the second one leaves at once."""

import os
import signal
from types import FrameType


def interrupt_on_signals() -> None:
    """Let the first SIGINT, SIGTERM or SIGHUP raise KeyboardInterrupt wherever the main thread is.

    A second one leaves at once. That is safe: the kernel kills the servers with this process.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Ignored under nohup, which means to outlive the terminal.
        signals.append(signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, leave)
        raise KeyboardInterrupt

    def leave(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    for each in signals:
        signal.signal(each, interrupt)
