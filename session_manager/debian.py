"""Debian and Ubuntu hosts: which one this is, and installing the distribution's packages."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .errors import HostError

SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
KEPT_LINES = 20  # of a command's output, for the error that says it failed
LOCK_SECONDS = 300  # how long apt waits for another apt

Progress = Callable[[str], object]
"""Takes a line of text for each step of something that takes long."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The Debian or Ubuntu release that this machine runs."""

    name: str
    """``debian`` or ``ubuntu``."""
    codename: str
    """Such as ``bookworm``."""


def distribution() -> Distribution | None:
    """This machine's release; None where it is not Debian or Ubuntu."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    name, codename = release.get("ID", ""), release.get("VERSION_CODENAME", "")
    return Distribution(name, codename) if name in ("debian", "ubuntu") and codename else None


def can_install() -> bool:
    """Whether this process may install packages: a Debian or Ubuntu machine, and root."""
    return distribution() is not None and os.geteuid() == 0


def find_program(name: str) -> str | None:
    """A program's path, also where it lies in a directory that only root's login has on its PATH."""
    return shutil.which(name, path=search_path())


def search_path() -> str:
    """PATH, and the directories of programs for administrators behind it."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_PATHS))


def install_packages(packages: Sequence[str], progress: Progress) -> None:
    """Install packages of the distribution, without those that they only recommend.

    :raises HostError: apt failed; carries the end of its output.
    """
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "--quiet", "--yes", "--option", f"DPkg::Lock::Timeout={LOCK_SECONDS}"]
    try:
        run([*apt, "update"], progress, environment)
    except HostError as error:
        # one source among many that is broken is no reason to stop: the package may well come from another
        progress(f"{error.message.splitlines()[0]} Going on with the package lists that are there.")
    run([*apt, "install", "--no-install-recommends", *packages], progress, environment)


def run(command: Sequence[str], progress: Progress, environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end, each line of its output a line of progress.

    :raises HostError: it is missing or failed; carries the end of its output.
    """
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        process = subprocess.Popen(  # noqa: S603 - the callers' own commands
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PATH": search_path(), "LC_ALL": "C.UTF-8", **(environment or {})},
        )
    except OSError as error:
        raise HostError(f"{command[0]} can't be run: {error.strerror}.") from error
    with process:
        assert process.stdout is not None  # noqa: S101 - asked for above; for the type checker
        for line in process.stdout:
            if text := line.strip():
                kept.append(text)
                progress(text[:160])
    if process.returncode:
        output = "\n".join(f"  {line}" for line in kept)
        raise HostError(f"`{' '.join(command)}` failed with exit code {process.returncode}:\n{output}")
