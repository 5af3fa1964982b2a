"""Sessions as plain local processes: the same supervisor, relay and kernel, without any isolation.

For machines where no container engine can be had, only when asked for by name, and for tests. Linux only: the
supervisor reads /proc. A "container" is a directory in the state directory, a "volume" another.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..container_options import ContainerOptions
from ..errors import ContainerGone, EngineError, EngineUnavailable, NameTaken
from ..settings import Settings
from .base import ContainerInfo, ContainerSpec, ExecStream, VolumeInfo, closed_if_cancelled
from .process_volumes import ProcessVolumes

logger = logging.getLogger(__name__)

KERNEL_IMAGE = Path(__file__).parents[2] / "kernel_image"
STARTING_SECONDS = 20.0
"""How old a directory without a process may be before it counts as left behind."""
STOP_SECONDS = 8.0
DOOR_GRACE = 5.0
"""Seconds in which a file door removes what it has not put into its place yet."""
IMAGE = "process"


@dataclass(frozen=True)
class _Record:
    """What the registry keeps of one supervisor, as JSON beside its log."""

    name: str
    """As it was called when it was made. What it is called now is its directory's name, which changes in one step."""
    labels: dict[str, str]
    volume: str
    runtime: str
    created: float
    pid: int
    started: str
    """Field 22 of /proc/PID/stat: tells a process from a later one of the same number."""


class ProcessExecStream:
    """A program of the image whose standard input and output are one end of a local socket pair."""

    def __init__(self, program: str, *arguments: str, grace: float = 0.0) -> None:
        """``grace``: seconds that it gets to end by itself once its input has ended."""
        self._grace = grace
        self._socket, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the stream
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this package's own programs
                [sys.executable, "-IS", str(KERNEL_IMAGE / program), *arguments],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._stderr,
                start_new_session=True,
            )
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def recv(self) -> bytes:
        """See :meth:`ExecStream.recv`."""
        return self._socket.recv(262144)

    def send(self, pieces: Sequence[memoryview]) -> int:
        """See :meth:`ExecStream.send`."""
        return self._socket.sendmsg(pieces)

    def last_words(self) -> str:
        """The end of its standard error."""
        if self._stderr.closed:
            return ""
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 4096))
        return self._stderr.read().decode(errors="replace")

    def close(self) -> None:
        """See :meth:`ExecStream.close`. The program sees its input end; one that does not go is killed."""
        self._socket.close()
        self._stderr.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


class ProcessEngine:
    """An :class:`~session_manager.engine.base.Engine` without containers."""

    name = "process"

    def __init__(self, settings: Settings) -> None:
        self._root = settings.state_directory() / "process"
        self._volumes = ProcessVolumes(self._root)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    async def find_image(self, wanted: str | None, progress: Callable[[str], None]) -> str:
        """See :meth:`Engine.find_image`. There are none: what runs is this program's own Python."""
        return IMAGE

    async def prepare(self, options: ContainerOptions, progress: Callable[[str], None]) -> None:
        """See :meth:`Engine.prepare`. A process has the network of this machine."""

    async def image_id(self, reference: str) -> str | None:
        """See :meth:`Engine.image_id`."""
        return ""

    async def create(self, spec: ContainerSpec) -> None:
        """See :meth:`Engine.create`. Limits of memory, processors and network do not apply here."""
        making = asyncio.create_task(asyncio.to_thread(self._create, spec))
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            # a thread goes on all the same: who cleans up after us must come after it
            await asyncio.wait([making])
            if not making.cancelled() and (error := making.exception()) is not None:
                logger.debug("%s: %s", spec.name, error)
            raise

    def _create(self, spec: ContainerSpec) -> None:
        if not sys.platform.startswith("linux"):
            raise EngineUnavailable("The process engine runs on Linux only.", "Use a container engine.")
        if importlib.util.find_spec("ipykernel") is None:
            raise EngineUnavailable(
                "The process engine needs ipykernel in this environment.",
                "Install it: `pip install 'docker-interpreter[process]'`.",
            )
        if spec.options.volumes:
            raise EngineError(
                "The process engine can't bind folders, and the option `volumes` asks for it.",
                "Leave it away: without isolation the code reaches all of this machine's folders as it is.",
            )
        directory = self._root / "containers" / spec.name
        self._load(spec.name)  # sweeps one that ended
        with self._volumes.lock():
            directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                directory.mkdir(mode=0o700)
            except FileExistsError:
                raise name_taken(spec.name) from None
            (directory / "volume").write_text(spec.volume)
            self._volumes.create(spec.volume, spec.labels)
        runtime = tempfile.mkdtemp(prefix="dockint-process-")
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **spec.options.environment}
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - this package's own supervisor
                [
                    sys.executable,
                    str(KERNEL_IMAGE / "supervisor.py"),
                    runtime,
                    str(self._volumes.files(spec.volume)),
                    json.dumps(spec.supervision),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._children[process.pid] = process
        record = _Record(
            spec.name,
            dict(spec.labels),
            spec.volume,
            runtime,
            time.time(),
            process.pid,
            start_time(process.pid) or "",
        )
        partial = directory / "record.new"
        partial.write_text(json.dumps(asdict(record)))
        partial.rename(directory / "record.json")

    def _load(self, name: str) -> _Record | None:
        """The record of a living supervisor. What ended is swept, as a container engine removes what ended."""
        directory = self._root / "containers" / name
        record = self._read(name)
        if record is None:
            if is_stale(directory):
                self._sweep(name, None)
            return None
        child = self._children.get(record.pid)
        if child is not None and child.poll() is not None:
            del self._children[record.pid]
        if start_time(record.pid) == record.started:
            return record
        self._sweep(name, record)
        return None

    def _read(self, name: str) -> _Record | None:
        """The record as it was written; None where there is none, or none yet."""
        directory = self._root / "containers" / name
        try:
            return _Record(**{**json.loads((directory / "record.json").read_text()), "name": name})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise EngineError(
                f"The record of the session process {name} is damaged.", f"Remove {directory}."
            ) from error

    def _sweep(self, name: str, record: _Record | None) -> None:
        """Remove what is left of one that ended, unless somebody swept it and the name is in use again."""
        with self._volumes.lock():
            if self._read(name) != record or (record is None and not is_stale(self._root / "containers" / name)):
                return
            if record is not None:
                shutil.rmtree(record.runtime, ignore_errors=True)
            shutil.rmtree(self._root / "containers" / name, ignore_errors=True)

    def _names(self) -> list[str]:
        folder = self._root / "containers"
        return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []

    def _name_of(self, container: str) -> str:
        """The name of a container that is called by its name or its id."""
        if not (self._root / "containers" / container).exists():
            for name in self._names():
                if (record := self._load(name)) is not None and as_info(record).id == container:
                    return name
        return container

    async def exec(self, container: str, *, observe: bool = False) -> ExecStream:
        """See :meth:`Engine.exec`."""

        def start() -> ExecStream:
            runtime = self._running(container).runtime
            return ProcessExecStream("relay.py", runtime, *(["observe"] if observe else []))

        return await closed_if_cancelled(asyncio.to_thread(start))

    def _running(self, container: str) -> _Record:
        """The record of one that runs, or starts just now.

        :raises ContainerGone: it does not.
        """
        name = self._name_of(container)
        deadline = time.monotonic() + STARTING_SECONDS
        while (record := self._load(name)) is None:
            if not (self._root / "containers" / name).exists() or time.monotonic() > deadline:
                raise ContainerGone(f"The session process {container} does not run.")
            time.sleep(0.01)  # another program is between claiming the name and starting the process
        return record

    async def open_files(self, container: str) -> ExecStream:
        """See :meth:`Engine.open_files`."""

        def start() -> ExecStream:
            return ProcessExecStream(
                "file_door.py", str(self._volumes.files(self._running(container).volume)), grace=DOOR_GRACE
            )

        return await closed_if_cancelled(asyncio.to_thread(start))

    async def open_volume_files(
        self, volume: str, image: str, labels: Mapping[str, str], *, read_only: bool
    ) -> ExecStream:
        """See :meth:`Engine.open_volume_files`. It takes a program, but no container."""

        def start() -> ExecStream:
            if self._volumes.inspect(volume) is None:
                raise EngineError(f"There is no volume {volume}.")
            files = str(self._volumes.files(volume))
            return ProcessExecStream("file_door.py", files, *(["read-only"] if read_only else []), grace=DOOR_GRACE)

        return await closed_if_cancelled(asyncio.to_thread(start))

    async def inspect(self, container: str) -> ContainerInfo | None:
        """See :meth:`Engine.inspect`."""
        record = await asyncio.to_thread(self._load, container)
        return as_info(record) if record else None

    async def list(self, labels: Mapping[str, str]) -> Sequence[ContainerInfo]:
        """See :meth:`Engine.list`."""

        def find() -> list[ContainerInfo]:
            records = [record for name in self._names() if (record := self._load(name))]
            return [as_info(record) for record in records if labels.items() <= record.labels.items()]

        return await asyncio.to_thread(find)

    async def remove(self, container: str) -> None:
        """See :meth:`Engine.remove`."""

        def stop() -> None:
            name = self._name_of(container)
            record = self._load(name)
            if record is None:
                return
            for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(record.pid, number)
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline:
                    if self._load(name) != record:
                        return
                    time.sleep(0.01)
            raise EngineError(f"The session process {container} (pid {record.pid}) does not end.")

        await asyncio.to_thread(stop)

    async def rename(self, container: str, name: str) -> None:
        """See :meth:`Engine.rename`."""

        def move() -> None:
            self._load(name)  # sweeps one that ended
            if self._load(container) is None:
                raise ContainerGone(f"The session process {container} does not run.")
            folder = self._root / "containers"
            with self._volumes.lock():
                if (folder / name).exists():
                    raise name_taken(name)
                try:
                    (folder / container).rename(folder / name)
                except FileNotFoundError:
                    raise ContainerGone(f"The session process {container} does not run.") from None

        await asyncio.to_thread(move)

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> VolumeInfo:
        """See :meth:`Engine.create_volume`."""

        def create() -> VolumeInfo:
            with self._volumes.lock():
                return self._volumes.create(name, labels)

        return await asyncio.to_thread(create)

    async def inspect_volume(self, name: str) -> VolumeInfo | None:
        """See :meth:`Engine.inspect_volume`."""
        return await asyncio.to_thread(self._volumes.inspect, name)

    async def list_volumes(self, labels: Mapping[str, str]) -> Sequence[VolumeInfo]:
        """See :meth:`Engine.list_volumes`."""
        return await asyncio.to_thread(self._volumes.list, labels)

    async def remove_volume(self, volume: str) -> None:
        """See :meth:`Engine.remove_volume`."""

        def in_use() -> bool:
            containers = self._root / "containers"
            for name in self._names():
                with contextlib.suppress(FileNotFoundError):
                    if (containers / name / "volume").read_text() == volume:
                        return True
            return False

        def remove() -> None:
            for name in self._names():
                self._load(name)  # sweeps one that ended
            self._volumes.remove(volume, in_use)

        await asyncio.to_thread(remove)

    async def copy_volume(self, source: str, target: str, image: str, labels: Mapping[str, str]) -> None:
        """See :meth:`Engine.copy_volume`. It takes a program, but no container."""
        await self._volumes.copy(source, target)

    async def volume_sizes(self, names: Collection[str]) -> Mapping[str, int]:
        """See :meth:`Engine.volume_sizes`."""
        return await asyncio.to_thread(self._volumes.sizes, names)

    async def version(self) -> str:
        """See :meth:`Engine.version`."""
        return f"plain processes of Python {sys.version.split()[0]}, no isolation"

    async def close(self) -> None:
        """See :meth:`Engine.close`. Supervisors run on; those that ended are reaped."""
        for child in self._children.values():
            if child.poll() is None:
                child.returncode = 0  # it goes on without us, which is no leak to warn of


def as_info(record: _Record) -> ContainerInfo:
    """What the registry knows, in the engines' common words."""
    return ContainerInfo(
        id=f"{record.pid}-{record.started}",
        name=record.name,
        labels=record.labels,
        image=IMAGE,
        image_id="",
        state="running",
        created=record.created,
        volumes=(record.volume,),
    )


def is_stale(directory: Path) -> bool:
    """Whether whoever claimed a name, and started no process for it, must have gone."""
    try:
        return time.time() - directory.stat().st_mtime > STARTING_SECONDS
    except FileNotFoundError:
        return False


def name_taken(name: str) -> NameTaken:
    """What to raise where a session process has the name."""
    return NameTaken(f"A session process named {name} exists already.")


def start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot (proc(5), stat field 22); None where it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
