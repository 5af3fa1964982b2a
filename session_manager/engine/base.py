"""What an engine is: the seam between sessions and whatever runs their containers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ..container_options import ContainerOptions

RUNTIME_DIRECTORY = "/run/session"
"""Where a container's sockets are, for engines that give containers a file system of their own."""

LABEL_SESSION = "docker-interpreter.session"
"""Of what an engine makes beside a session's container: the container's id. It is of no use without that one."""
LABEL_BESIDE = "docker-interpreter.beside"
"""Of a session's container: how many containers the engine makes beside it, where it makes any."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What to create."""

    name: str
    image: str
    labels: Mapping[str, str]
    volume: str
    """Name of the volume that holds the workspace; it is made where it is missing, with the container's labels, and
    outlives the container."""
    supervision: Mapping[str, object]
    """What the supervisor is told, as JSON: see ``kernel_image/supervisor.py``."""
    options: ContainerOptions = field(default_factory=ContainerOptions)
    beside: Mapping[str, str] = field(default_factory=dict)
    """Labels of what else the engine has to make for the container, such as a proxy; :data:`LABEL_SESSION` is added."""


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What an engine knows of one container."""

    id: str
    """The engine's own name for it, which no other container ever has, and which a new name does not change."""
    name: str
    labels: Mapping[str, str]
    image: str
    image_id: str
    """What the engine calls the image's content; "" where there are no images."""
    state: Literal["starting", "running", "paused", "ended"]
    created: float
    """Unix time, seconds."""
    volumes: tuple[str, ...]
    """Names of the volumes that it has mounted."""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """Lasting files, or, where a volume is kept for its labels alone, a note."""

    name: str
    labels: Mapping[str, str]
    created: float
    """Unix time, seconds. Docker's own, which it reads from the file system, moves whenever an entry of the volume's
    top directory comes or goes: it says when a volume was made only of one that nothing was written to."""


class ExecStream(Protocol):
    """The standard input and output of a process that runs in a container, without blocking.

    Used by the link's thread alone once it was handed over.
    """

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def recv(self) -> bytes:
        """Bytes of its standard output; ``b""`` at the end.

        :raises BlockingIOError: nothing to read now.
        :raises OSError: the stream broke.
        :raises FrameError: what the engine sent is not its own format.
        """

    def send(self, pieces: Sequence[memoryview]) -> int:
        """Write to its standard input; how many bytes were taken.

        :raises BlockingIOError: full.
        :raises OSError: the stream broke.
        """

    def last_words(self) -> str:
        """The end of its standard error (at most a few kB)."""

    def close(self) -> None:
        """End the stream. The process in the container sees the end of its input."""


async def closed_if_cancelled(opening: Coroutine[object, object, ExecStream]) -> ExecStream:
    """What ``opening`` gives; if the caller is cancelled meanwhile it is waited for, and closed: nobody else could."""
    task = asyncio.ensure_future(opening)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            task.result().close()
        raise


class Engine(Protocol):
    """Creates, finds and removes containers. Every method may raise :class:`EngineUnavailable`.

    Nothing here blocks the event loop. A cancelled call may still take effect: names make that harmless.
    """

    name: str

    async def find_image(self, wanted: str | None, progress: Callable[[str], None]) -> str:
        """The reference of the image to run: ``wanted``, or the default one (None) or the example one (``example``).

        The latter two are built when they are missing, any other is pulled; ``progress`` gets a line for each step.

        :raises ImageMissing: the engine does not have it, and can't pull it.
        :raises ImageBuildFailed: it could not be built.
        """

    async def prepare(self, options: ContainerOptions, progress: Callable[[str], None]) -> None:
        """Make what containers with these options need beside their own image, so that :meth:`create` is quick.

        :raises ImageBuildFailed: it could not be built.
        """

    async def image_id(self, reference: str) -> str | None:
        """What :attr:`ContainerInfo.image_id` is of containers made now; None where the engine has no such image."""

    async def create(self, spec: ContainerSpec) -> None:
        """Create and start a container, with its volume, and what its network needs beside it.

        :raises NameTaken: a container of this name exists. No volume was made then: the name is the lock.
        :raises ContainerGone: somebody removed it between the two.
        :raises ImageMissing: the engine does not have the image.
        :raises EngineError: anything else that the engine says, in its words.
        """

    async def exec(self, container: str, *, observe: bool = False) -> ExecStream:
        """Run the relay in a container, called by its name or its id. Who only observes keeps no idle session alive.

        :raises ContainerGone: no such container, or it does not run.
        """

    async def open_files(self, container: str) -> ExecStream:
        """Run the file door (``kernel_image/file_door.py``) in a container, called by its name or its id.

        :raises ContainerGone: no such container, or it does not run.
        """

    async def open_volume_files(
        self, volume: str, image: str, labels: Mapping[str, str], *, read_only: bool
    ) -> ExecStream:
        """Run the file door on a volume that exists. Closing the stream ends it.

        Where that takes a container, it is made from ``image`` and carries ``labels``, by which one can be found that
        was left behind.

        :raises ImageMissing: the engine does not have the image.
        :raises EngineError: there is no such volume.
        """

    async def inspect(self, container: str) -> ContainerInfo | None:
        """What is known of one container; None where there is none."""

    async def list(self, labels: Mapping[str, str]) -> Sequence[ContainerInfo]:
        """Every container, running or not, that carries these labels."""

    async def remove(self, container: str) -> None:
        """Kill and remove a container, called by its name or its id, and what was made beside it.

        Not an error where it is gone. What was made beside one that ended by itself ends too, but may stay listed until
        it is removed, by its own name.
        """

    async def rename(self, container: str, name: str) -> None:
        """Give a container another name, in one step.

        Of two callers that want the same name one gets it, and of two that want the same container.

        :raises NameTaken: a container of this name exists.
        :raises ContainerGone: there is no such container, or somebody else renames it now.
        """

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> VolumeInfo:
        """The volume of this name: made now, or, where there is one, that one, with the labels it was made with."""

    async def inspect_volume(self, name: str) -> VolumeInfo | None:
        """What is known of one volume; None where there is none."""

    async def list_volumes(self, labels: Mapping[str, str]) -> Sequence[VolumeInfo]:
        """Every volume that carries these labels."""

    async def remove_volume(self, volume: str) -> None:
        """Remove a volume and the files in it. Not an error where it is gone.

        :raises VolumeInUse: a container, running or not, has it.
        """

    async def copy_volume(self, source: str, target: str, image: str, labels: Mapping[str, str]) -> None:
        """Copy all files of one volume into another, which exists and is empty.

        Where that takes a container, it is made from ``image`` and carries ``labels``, by which one can be found
        that was left behind. Cancelling the call ends the copying; what was copied so far stays.

        :raises ImageMissing: the engine does not have the image.
        :raises EngineError: a volume is missing, or not all could be copied; the message says why.
        """

    async def volume_sizes(self, names: Collection[str]) -> Mapping[str, int]:
        """How many bytes the files in volumes take. Those that are gone, or of unknown size, are left out.

        The engine may have to walk every file that it keeps: this is for now and then.
        """

    async def version(self) -> str:
        """The engine's name and version, for people."""

    async def close(self) -> None:
        """Let go of connections and threads. Containers live on."""
