"""Folders of the host that an administrator binds into sessions: the option ``volumes``, in docker-py's words."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MODES = ("ro", "rw")
# What hands the host over, whole or nearly so, however it is bound; and what does so with all that is below it.
_WHOLE = frozenset(
    ("/bin", "/home", "/lib", "/lib32", "/lib64", "/libx32", "/root", "/sbin", "/Users", "/usr", "/usr/bin", "/usr/lib")
    + ("/usr/libexec", "/usr/local", "/usr/local/bin", "/usr/local/lib", "/usr/local/sbin", "/usr/sbin", "/var/lib")
)
_NEVER = frozenset(
    ("/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/var/run", "/var/lib/containerd", "/var/lib/containers")
    + ("/var/lib/docker", "/var/lib/kubelet", "/var/spool/cron")
)
_HOMES = ("/home", "/Users")
# Of people, wherever they lie: keys, and what the docker command and others log in with.
_KEYS = frozenset((".aws", ".azure", ".docker", ".gnupg", ".kube", ".ssh"))
_SOCKETS = ("buildkitd.sock", "containerd.sock", "crio.sock", "docker.sock", "podman.sock")
# Where engines that people run for themselves listen, below their homes.
_SOCKETS_AT_HOME = (
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
    ".orbstack/run/docker.sock",
    ".rd/docker.sock",
)
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
            if hands_over(path):
                raise ValueError(
                    f"should not bind {folder}{'' if path == folder else f', which is {path}'}: it would hand the host "
                    "over to the code in sessions"
                )
        if folder.endswith(".sock") or holds_socket(real):
            raise ValueError(
                f"should not bind {folder}: who reaches a service of the host is not in a sandbox any more"
            )
        return cls(folder, target.rstrip("/"), mode)

    def __str__(self) -> str:
        return ":".join(self)


def is_within(path: str, folder: str) -> bool:
    """Whether a path is that of the folder, or of something below it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def hands_over(path: str) -> bool:
    """Whether whoever has this path, which leads through no links, has the host."""
    parts = PurePosixPath(path)
    if _KEYS.intersection(parts.parts) or str(parts.parent) in _HOMES:
        return True
    # what is a link on this machine counts where it leads, too: /var/run, or a /var/lib/docker on another disk
    whole = {name for one in _WHOLE for name in (one, os.path.realpath(one))}
    never = {name for one in _NEVER for name in (one, os.path.realpath(one))}
    return path in whole or any(is_within(path, one) or is_within(one, path) for one in never)


def holds_socket(path: str) -> bool:
    """Whether that is a socket, or a folder with an engine's socket in it, on this machine."""
    if is_socket(path) or any(is_socket(f"{path}/{name}") for name in _SOCKETS):
        return True
    known = [f"{Path.home()}/{name}" for name in _SOCKETS_AT_HOME]
    known.append(os.environ.get("DOCKER_HOST", "").removeprefix("unix://"))
    return any(is_within(os.path.realpath(one), path) for one in known if one.startswith("/") and is_socket(one))


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
    _refuse_below_what_is_written(folders)
    return tuple(map(str, folders))


def _refuse_below_what_is_written(folders: Sequence[BoundFolder]) -> None:
    """The engine follows links on its host: code that puts one in a folder's place chooses what the next session sees.

    Raises ValueError where it could.
    """
    written = [os.path.realpath(folder.source) for folder in folders if folder.mode == "rw"]
    for folder in folders:
        above = next((one for one in written for path in (folder.source, os.path.realpath(folder.source))
                      if path != one and is_within(path, one)), None)  # fmt: skip
        if above is not None:
            raise ValueError(
                f"should not bind {folder.source} beside {above}, which sessions write to: they could put a link in "
                "its place, and the next session would see what that leads to"
            )


def _from_mapping(source: object, bound: object) -> str:
    """An entry of docker-py's other form: ``{"/srv/data": {"bind": "/mnt/data", "mode": "ro"}}``."""
    if not isinstance(bound, Mapping) or not bound.keys() <= {"bind", "mode"} or "bind" not in bound:
        raise ValueError('should give each folder as {"bind": "/mnt/data", "mode": "ro"}')
    return f"{source}:{bound['bind']}:{bound.get('mode', 'rw')}"
