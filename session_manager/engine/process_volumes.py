"""Volumes of the process engine: directories, each with a file of labels beside the session's own files."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import stat
import subprocess
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from ..errors import EngineError, VolumeInUse
from .base import VolumeInfo

LAST_WORDS = 2000


class ProcessVolumes:
    """The volumes below ``root``.

    ``lock`` is held by whoever makes or removes a volume or claims a container's name, in whatever process: a volume
    is never removed under a container that starts.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "volumes"

    def files(self, name: str) -> Path:
        """Where a volume's own files are."""
        return self._folder / name / "files"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Alone among threads and processes. Held for moments; a process that is killed lets go of it."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._root / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def create(self, name: str, labels: Mapping[str, str]) -> VolumeInfo:
        """The volume of this name, made where it is missing. The caller has the lock."""
        found = self.inspect(name)
        if found is not None:
            return found
        self.files(name).mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._folder / name / "labels.new"
        partial.write_text(json.dumps(dict(labels)))
        # the file's own time, which nothing changes, is the volume's
        partial.rename(partial.with_name("labels.json"))
        made = self.inspect(name)
        if made is None:
            raise EngineError(f"The volume {name} was removed by hand while it was made.")
        return made

    def inspect(self, name: str) -> VolumeInfo | None:
        """One volume, or None."""
        path = self._folder / name / "labels.json"
        try:
            return VolumeInfo(name, json.loads(path.read_text()), path.stat().st_mtime)
        except FileNotFoundError:
            return None

    def list(self, labels: Mapping[str, str]) -> list[VolumeInfo]:
        """Every volume with these labels."""
        names = sorted(path.parent.name for path in self._folder.glob("*/labels.json"))
        found = [volume for name in names if (volume := self.inspect(name))]
        return [volume for volume in found if labels.items() <= volume.labels.items()]

    def remove(self, name: str, in_use: Callable[[], bool]) -> None:
        """Remove a volume that may be gone already.

        ``in_use`` is asked under the lock.

        :raises VolumeInUse: it said so.
        """
        bin_ = self._root / "removed"
        with self.lock():
            if in_use():
                raise VolumeInUse(f"A session process has the volume {name}.", "End it first.")
            bin_.mkdir(exist_ok=True, mode=0o700)
            with contextlib.suppress(FileNotFoundError):
                (self._folder / name).rename(bin_ / uuid.uuid4().hex)
        if left := list(bin_.iterdir()):  # with what others were killed over
            # a tree may be deeper than Python's own removal can go; what is left is removed with the next
            subprocess.run(["rm", "-rf", "--", *left], capture_output=True)  # noqa: S603, S607

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """Bytes of the files in each volume that exists."""
        return {name: size_of(self.files(name)) for name in names if self.files(name).is_dir()}

    async def copy(self, source: str, target: str) -> None:
        """Copy all files of a volume into another.

        :raises EngineError: a volume is missing, or not all could be copied; with the end of what ``cp`` says.
        """
        for name in (source, target):
            if self.inspect(name) is None:
                raise EngineError(f"There is no volume {name} to copy files from or to.")
        process = await asyncio.create_subprocess_exec(
            "cp",
            "-a",
            "--",
            f"{self.files(source)}/.",
            f"{self.files(target)}/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
        try:
            _, words = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
            raise
        if process.returncode != 0:
            said = words.decode(errors="replace").strip()[-LAST_WORDS:]
            raise EngineError(f"Copying a session's files failed: {said or f'exit code {process.returncode}'}")


def size_of(directory: Path) -> int:
    """Bytes of the files below a directory, each counted once however many names it has."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(OSError):  # removed while we look
                found = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - many files
                if not stat.S_ISDIR(found.st_mode):
                    seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())
