"""What processes of this machine use, as /proc tells it: Linux, with the engine on the same machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

PROC = Path("/proc")
DAEMONS = ("dockerd", "containerd")
SHIM = "containerd-shim"


def pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def read(pid: int, file: str) -> str:
    """A file of a process; empty where that has ended, or is not for this user."""
    try:
        return (PROC / str(pid) / file).read_text(errors="replace")
    except OSError:
        return ""


def of_containers(containers: Collection[str]) -> list[int]:
    """Processes inside containers, given by their ids.

    :raises RuntimeError: there are none, as where the engine is on another machine.
    """
    found = [pid for pid in pids() if any(one in read(pid, "cgroup") for one in containers)]
    if not found:
        raise RuntimeError("/proc shows no process of a container: the engine is on another machine, or hides them")
    return found


def of_engine(containers: Collection[str]) -> list[int]:
    """The engine's daemons, and the shims of these containers."""
    found = []
    for pid in pids():
        name, command = read(pid, "comm").strip(), read(pid, "cmdline")
        shim = name.startswith(SHIM) and any(one in command for one in containers)
        if name in DAEMONS or shim:
            found.append(pid)
    return found


def pss(processes: Iterable[int]) -> int:
    """Bytes of memory, what is shared counted in part.

    :raises RuntimeError: /proc does not tell.
    """
    total = 0
    for pid in processes:
        lines = [line for line in read(pid, "smaps_rollup").splitlines() if line.startswith("Pss:")]
        total += sum(int(line.split()[1]) * 1024 for line in lines)
    if not total:
        raise RuntimeError("/proc does not tell what memory these processes share: that is for root")
    return total


def cpu(processes: Iterable[int]) -> float:
    """Seconds of processor time that they have used so far."""
    ticks = 0
    for pid in processes:
        fields = read(pid, "stat").rpartition(")")[2].split()
        if fields:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident() -> int:
    """Bytes of this process."""
    return int(read(os.getpid(), "statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available() -> int:
    """Bytes of memory that new processes can have without swapping."""
    lines = (PROC / "meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
