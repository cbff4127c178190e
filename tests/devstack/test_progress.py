"""What a person sees while the servers start."""

import io

import pytest
from rich.console import Console

from devstack.progress import LiveProgress, PlainProgress, Progress, progress_for


def _shown(terminal: bool) -> tuple[Progress, str]:
    output = io.StringIO()
    progress = progress_for(Console(file=output, force_terminal=terminal, width=100))
    with progress:
        progress.begin(["valkey", "kafka"])
        progress.step("kafka", "downloading jars: 1 of 45")
        progress.step("kafka", "downloading jars: 2 of 45")
        progress.ready("valkey", 0.12, "127.0.0.1:20001")
        progress.failed("kafka")
    return progress, output.getvalue()


def test_pipe_gets_one_plain_line_per_event() -> None:
    progress, text = _shown(terminal=False)

    assert isinstance(progress, PlainProgress)
    assert text.splitlines() == [
        "kafka      downloading jars: 1 of 45",
        "valkey     ready after 0.1 s on 127.0.0.1:20001",
        "kafka      failed",
    ]


@pytest.mark.parametrize("expected", ["✓", "✗", "127.0.0.1:20001", "0.1 s"])
def test_terminal_keeps_the_outcome_of_each_server(expected: str) -> None:
    progress, text = _shown(terminal=True)

    assert isinstance(progress, LiveProgress)
    assert expected in text
