"""Who is at the other end of a socket inside the container. Standard library only.

All in a container is one user's, so that its code can connect wherever the relay can, and listen wherever the
supervisor does. What it can't do is to be the first process, or one that the engine has started: those have no parent
in here.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

CREDENTIALS = struct.Struct("3i")  # process, user, group: see unix(7), SO_PEERCRED
PR_SET_DUMPABLE = 4


def peer(connection: socket.socket) -> int:
    """The process at the other end, as of when it connected or began to listen."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(found)[0])


def is_first(connection: socket.socket) -> bool:
    """Whether the first process listens there. gVisor names the caller itself as its peer, whoever that is."""
    return peer(connection) in (1, os.getpid())


def is_from_outside(connection: socket.socket) -> bool:
    """Whether who connected was started by the engine."""
    pid = peer(connection)
    if pid in (0, os.getpid()):  # gVisor, as above
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:  # it has ended
        return False
    return int(fields[1]) == 0


def keep_to_itself() -> None:
    """Nothing of the same user may trace this process from now on, or read or change its memory."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
