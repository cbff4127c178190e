"""``python -m devstack`` as a person meets it: refusals, signals, crashes, and nothing left behind."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack import AlreadyRunningError, Stack
from tests.devstack.conftest import CommandLine


def test_second_start_on_the_same_folder_is_refused_in_one_line(
    tmp_path: Path, command_line: Callable[..., CommandLine]
) -> None:
    with Stack(tmp_path, ["valkey"]) as stack:
        with pytest.raises(AlreadyRunningError):
            Stack(tmp_path).start()
        status, errors = command_line(tmp_path).finish()

        assert status == 1
        assert len(errors.splitlines()) == 1
        assert str(tmp_path) in errors
        assert stack.env_path.exists(), "the refused start must not touch the running stack's env file"


def test_server_that_dies_later_ends_the_command_with_its_log(
    tmp_path: Path, command_line: Callable[..., CommandLine]
) -> None:
    line = command_line(tmp_path, "valkey", "mongodb")
    line.wait_until_ready()

    signal.pidfd_send_signal(line._pidfds[0], signal.SIGKILL)

    status, errors = line.finish()
    assert status == 1
    assert "valkey ended by itself (killed by signal 9)" in errors
    assert "Ready to accept connections" in errors
    line.wait_for_servers_to_end()


@pytest.mark.parametrize(("number", "servers"), [(signal.SIGTERM, ("mongodb", "valkey")), (signal.SIGINT, ("valkey",))])
def test_signal_stops_everything_and_exits_0(
    tmp_path: Path, command_line: Callable[..., CommandLine], number: signal.Signals, servers: tuple[str, ...]
) -> None:
    line = command_line(tmp_path, *servers)
    line.wait_until_ready()

    line.process.send_signal(number)

    assert line.finish() == (0, "")
    line.wait_for_servers_to_end()
    assert not (tmp_path / "env").exists()


def test_kill_9_leaves_no_server_and_the_folder_usable(
    tmp_path: Path, command_line: Callable[..., CommandLine]
) -> None:
    line = command_line(tmp_path, "mongodb", "valkey")
    line.wait_until_ready()

    line.process.kill()
    line.process.wait()  # Its thread that forked the servers can be gone before the rest of it, which holds the lock.

    line.wait_for_servers_to_end()
    with Stack(tmp_path, ["mongodb", "valkey"]) as again:
        assert again.mongodb.is_running
