"""Which folders of the host are bound below the workspace: they are not the session's. Standard library only.

Their device says nothing: a folder bound from the disk that holds the engine's volumes has the workspace's own.
"""

from __future__ import annotations

import os
import re

MOUNTS = "/proc/self/mountinfo"
MOUNT_POINT = 4  # which field of a line; see proc(5)
ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")  # how a space, tab, line's end or backslash is written there


def bound_below(directory: str, mounts: str = MOUNTS) -> frozenset[str]:
    """Where something is mounted below a directory, as paths relative to it; none where that can't be learnt."""
    root = os.fsencode(os.path.realpath(directory)).rstrip(b"/") + b"/"
    try:
        with open(mounts, "rb") as file:  # noqa: PTH123 - pathlib takes a while to load
            lines = file.read().splitlines()
    except OSError:  # another system than Linux
        return frozenset()
    found = set()
    for line in lines:
        fields = line.split(b" ")
        if len(fields) > MOUNT_POINT:
            point = ESCAPE.sub(lambda escape: bytes([int(escape[1], 8)]), fields[MOUNT_POINT])
            if point.startswith(root) and point != root:
                found.add(os.fsdecode(point[len(root) :]))
    return frozenset(found)
