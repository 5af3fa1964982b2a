"""A Python that waits to become the next kernel, for when this one has to be killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .supervised import BUSY, DAEMON, INTERRUPTIBLE, WAITING, Control, Start, Supervised, is_running, wait_until

LONG = 600.0


def standing_by(supervised: Supervised, client: Control, seconds: float = LONG) -> int:
    """Interrupt, with a Python to stand by; its process."""
    file = supervised.workspace / "standby"
    assert client.request("interrupt", standby=seconds)["interrupted"] is True
    wait_until(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def restarted(client: Control) -> None:
    """That a restart gives a kernel that works."""
    client.request("restart")
    client.event(state="ready", generation=2)


def test_it_becomes_the_next_kernel_and_all_else_is_killed(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + DAEMON + BUSY)
    client = supervised.attached()
    first, daemon = supervised.pid(), int((supervised.workspace / "daemon").read_text())
    waits = standing_by(supervised, client)
    wait_until(lambda: (supervised.workspace / "interrupted").exists())
    assert standing_by(supervised, client) == waits, "one is enough"
    (supervised.workspace / "daemon").unlink()
    restarted(client)
    assert supervised.pid() == waits and is_running(waits)
    assert not is_running(first) and not is_running(daemon)
    assert client.request("status")["kernel"]["generation"] == 2
    client.request("restart")
    client.event(state="ready", generation=3)
    assert supervised.pid() != waits, "it was for one restart"
    assert not is_running(waits)


def test_it_goes_when_its_time_is_over(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + BUSY)
    client = supervised.attached()
    waits = standing_by(supervised, client, 1.0)
    wait_until(lambda: not is_running(waits))
    assert is_running(supervised.pid())
    restarted(client)


def test_it_goes_with_a_kernel_that_ends_by_itself(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + BUSY)
    client = supervised.attached()
    waits = standing_by(supervised, client)
    os.kill(supervised.pid(), signal.SIGKILL)
    client.event(state="dead")
    wait_until(lambda: not is_running(waits))
    restarted(client)


def test_it_goes_with_the_session(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + BUSY)
    client = supervised.attached()
    waits = standing_by(supervised, client)
    client.request("shutdown")
    assert supervised.ended()
    assert not is_running(waits)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("harm", [end, stop])
def test_code_that_harms_it_gains_nothing(start: Start, harm: Callable[[int], None]) -> None:
    supervised = start(INTERRUPTIBLE + BUSY)
    client = supervised.attached()
    harm(standing_by(supervised, client))
    restarted(client)
    assert is_running(supervised.pid())


def test_one_that_ended_is_collected_and_may_be_followed_by_another(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + BUSY)
    client = supervised.attached()
    end(standing_by(supervised, client))
    (supervised.workspace / "standby").unlink()
    client.request("status")
    second = standing_by(supervised, client)
    restarted(client)
    assert supervised.pid() == second


def test_there_is_none_where_memory_is_short(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + BUSY, {"kernel_python.memory_left": "lambda: 100 << 20"})
    client = supervised.attached()
    client.request("interrupt", standby=LONG)
    wait_until(lambda: (supervised.workspace / "interrupted").exists())
    time.sleep(0.2)
    assert not (supervised.workspace / "standby").exists()
    restarted(client)


def test_an_interrupt_alone_makes_none(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + WAITING)
    client = supervised.attached()
    client.request("interrupt")
    wait_until(lambda: (supervised.workspace / "interrupted").exists())
    time.sleep(0.2)
    assert not (supervised.workspace / "standby").exists()


def test_where_none_can_be_started_nothing_stays_open(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + BUSY)
    client = supervised.attached()
    open_files = Path(f"/proc/{supervised.process.pid}/fd")
    before = len(list(open_files.iterdir()))
    away = supervised.workspace.rename(supervised.workspace.with_name("away"))
    for _ in range(3):
        client.request("interrupt", standby=LONG)
    assert len(list(open_files.iterdir())) == before
    away.rename(supervised.workspace)
    restarted(client)
