"""Folders of the host that an administrator binds into sessions: the option ``volumes``, in docker-py's words."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MODES = ("ro", "rw")
# What hands the host over, whole or nearly so, however it is bound; and what does so with all that is below it.
_WHOLE = frozenset(
    ("/", "/bin", "/home", "/lib", "/root", "/sbin", "/usr", "/usr/bin", "/usr/lib", "/usr/sbin", "/var", "/var/lib")
)
_NEVER = frozenset(
    ("/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var/run", "/var/lib/containerd", "/var/lib/containers")
    + ("/var/lib/docker", "/var/lib/kubelet", "/var/spool/cron")
)
_SOCKETS = ("buildkitd.sock", "containerd.sock", "crio.sock", "docker.sock", "podman.sock")
_SYNTAX = 'should look like "/srv/data:/mnt/data:ro": a folder of the host, where it is in the container, ro or rw'


class BoundFolder(NamedTuple):
    """One folder of the host, as sessions see it."""

    source: str
    """An absolute path on the engine's host."""
    target: str
    """An absolute path in the container."""
    mode: str
    """``ro``: sessions read it; ``rw``: they write to it as well."""

    @classmethod
    def parse(cls, text: str) -> BoundFolder:
        """What ``"/srv/data:/mnt/data:ro"`` says; without a mode it is ``rw``, as with docker.

        Raises ValueError for anything else.
        """
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        mode = mode or "rw"
        if not target or mode not in MODES:
            raise ValueError(_SYNTAX)
        parts = PurePosixPath(source)
        if not parts.is_absolute() or ".." in parts.parts or not re.fullmatch(r"[^\0\n]{1,4096}", source):
            raise ValueError(f"should name a folder of the host by its absolute path, not {source!r:.100}")
        folder = str(parts).replace("//", "/")
        # a link leads where it leads, as far as this machine is the engine's host; elsewhere it leads nowhere
        real = os.path.realpath(folder)
        for path in (folder, real):
            if path in _WHOLE or any(path == one or path.startswith(f"{one}/") for one in _NEVER):
                raise ValueError(
                    f"should not bind {folder}{'' if path == folder else f', which is {path}'}: it would hand the host "
                    "over to the code in sessions"
                )
        if folder.endswith(".sock") or is_socket(real) or any(is_socket(f"{real}/{name}") for name in _SOCKETS):
            raise ValueError(
                f"should not bind {folder}: who reaches a service of the host is not in a sandbox any more"
            )
        return cls(folder, target.rstrip("/"), mode)

    def __str__(self) -> str:
        return ":".join(self)


def is_socket(path: str) -> bool:
    """Whether there is a socket, on this machine."""
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def bound_folders(value: object) -> object:
    """The option as docker-py takes it, a list of texts or a mapping, as texts that :meth:`BoundFolder.parse` reads.

    Raises ValueError for what docker-py would not take, and for what would hand the host over.
    """
    if isinstance(value, Mapping):
        value = [_from_mapping(source, bound) for source, bound in value.items()]
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(f"should be a list; each {_SYNTAX}")
    folders = []
    for one in value:
        if not isinstance(one, str):
            raise ValueError(_SYNTAX)
        folders.append(BoundFolder.parse(one))
    targets = [folder.target for folder in folders]
    if len(set(targets)) < len(targets):
        raise ValueError("should bind one folder to each place in the container")
    return tuple(map(str, folders))


def _from_mapping(source: object, bound: object) -> str:
    """An entry of docker-py's other form: ``{"/srv/data": {"bind": "/mnt/data", "mode": "ro"}}``."""
    if not isinstance(bound, Mapping) or not bound.keys() <= {"bind", "mode"} or "bind" not in bound:
        raise ValueError('should give each folder as {"bind": "/mnt/data", "mode": "ro"}')
    return f"{source}:{bound['bind']}:{bound.get('mode', 'rw')}"
