"""What /proc and the cgroup say of a session's processes. Standard library only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def descendants(root: int) -> list[int]:
    """Every living process below ``root``, by the parents that /proc names. Zombies do not count."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - thousands of entries in a fork bomb: names are enough
        if entry.isdigit():
            with contextlib.suppress(OSError):
                # the command's name, in parentheses, may hold anything, parentheses too
                fields = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] not in (b"Z", b"X"):
                    children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def oom_kill_count() -> int:
    """How many processes of this container the host ended for want of memory (cgroup v2, then v1)."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def memory_use() -> int:
    """Bytes that this session's processes hold, without the page cache."""
    held = cgroup_memory(("anon",), ("total_rss",))
    if held is not None:
        return held
    total = 0
    for pid in [os.getpid(), *descendants(os.getpid())]:
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total


def memory_left() -> int | None:
    """Bytes that this container's processes may still take; None where nothing says so."""
    held = cgroup_memory(("anon", "shmem"), ("total_rss", "total_shmem"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            if held is not None:
                return int(Path(path).read_text()) - held
    return None


def cgroup_memory(fields: tuple[str, ...], fields_v1: tuple[str, ...]) -> int | None:
    """The sum of ``fields`` in the container's memory.stat, or of the names that cgroup v1 has for them, in bytes."""
    if os.getpid() == 1:
        for path, wanted in (
            ("/sys/fs/cgroup/memory.stat", fields),
            ("/sys/fs/cgroup/memory/memory.stat", fields_v1),
        ):
            with contextlib.suppress(OSError, ValueError):
                lines = [line.partition(" ") for line in Path(path).read_text().splitlines()]
                if found := [int(value) for name, _, value in lines if name in wanted]:
                    return sum(found)
    return None
