"""What ``doctor`` warns of: engines with known holes, ones that anybody may command, programs with too many rights."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Hole:
    """A way out of containers that was found, and the first version without it in each series that was mended."""

    component: str
    name: str
    lets: str
    mended: tuple[Version, ...]
    plugins: bool = False
    """Whether it concerns only engines that ask plugins who may do what."""

    def is_in(self, version: Version) -> bool:
        """Whether a version of the component has it."""
        series = [fix for fix in self.mended if fix[:2] == version[:2]]
        return version < series[0] if series else version < max(self.mended)


HOLES: Final = (
    Hole("runc", "CVE-2024-21626", "a container reach the host's files through a leaked descriptor", ((1, 1, 12),)),
    Hole("runc", "CVE-2025-31133", "a container write to the host's /proc in a race", ((1, 2, 8), (1, 3, 3))),
    Hole("containerd", "CVE-2022-23648", "an image read files of the host", ((1, 4, 13), (1, 5, 10), (1, 6, 1))),
    Hole(
        "Engine",
        "CVE-2024-41110",
        "a program command the engine past its authorization plugins",
        ((23, 0, 15), (25, 0, 6), (26, 1, 5), (27, 1, 1)),
        plugins=True,
    ),
)
LIMITS: Final = (
    ("MemoryLimit", "memory"),
    ("SwapLimit", "swap"),
    ("PidsLimit", "the number of processes"),
    ("CpuCfsQuota", "processor time"),
)
"""What an engine says of the limits that it can set, and what they are of."""


def version_of(text: str) -> Version:
    """``(1, 1, 5)`` of ``1.1.5+ds1``; empty where there is no number."""
    found = re.match(r"v?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def engine_warnings(version: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[str]:
    """Of an engine that says so of its version and of itself, in the words of its API."""
    asks_plugins = bool((info.get("Plugins") or {}).get("Authorization"))
    components = {str(one.get("Name")): str(one.get("Version")) for one in version.get("Components") or ()}
    for hole in HOLES:
        text = components.get(hole.component, "")
        concerned = asks_plugins or not hole.plugins
        if concerned and (number := version_of(text)) and hole.is_in(number):
            mended = " or ".join(".".join(map(str, fix)) for fix in hole.mended)
            yield (
                f"{hole.component} {text} is older than {mended}, which mended {hole.name}: it may let {hole.lets}. "
                "Update the engine, unless your distribution has mended its version."
            )


def isolation_warnings(info: Mapping[str, Any]) -> Iterator[str]:
    """Of an engine that says that it lacks what keeps containers in, in the words of its API."""
    for name, what in LIMITS:
        if info.get(name) is False:
            yield (
                f"The engine can't limit {what}: sessions may take as much as there is. Its kernel, or the user "
                "that it runs as, lacks a cgroup for it: `docker info` shows which."
            )
    options = info.get("SecurityOptions")
    if options is not None and not any("seccomp" in one and "unconfined" not in one for one in map(str, options)):
        yield (
            "The engine runs without its seccomp profile: code in sessions may make system calls that no program "
            "needs, and that holes in the kernel are reached by."
        )


def address_warnings(url: str) -> Iterator[str]:
    """Of an engine at this address."""
    if url.startswith("tcp://") and not os.environ.get("DOCKER_TLS_VERIFY"):
        yield f"Nothing protects {url}: whoever reaches it is root on its host. Use TLS, or ssh:// in its place."
    if url.startswith("unix://"):
        path = Path(url.removeprefix("unix://"))
        try:
            mode = path.stat().st_mode
        except OSError:
            return  # that no engine answers there is said by the first check
        if mode & stat.S_IWOTH:
            yield f"Every user of this machine may write to {path}, and so is root here: `chmod o-w {path}`."


def program_warnings(user: int) -> Iterator[str]:
    """Of this program, which runs as that user."""
    if user == 0:
        yield (
            "This program runs as root, which it does not need: a user who may use the engine's socket "
            "(often the group docker) will do."
        )
