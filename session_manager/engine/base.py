"""What an engine is: the seam between sessions and whatever runs their containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ..settings import ContainerOptions

RUNTIME_DIRECTORY = "/run/session"
"""Where a container's sockets are, for engines that give containers a file system of their own."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What to create."""

    name: str
    image: str
    labels: Mapping[str, str]
    volume: str
    """Name of the volume that holds the workspace; it is made where it is missing, and outlives the container."""
    idle_timeout: float
    """Seconds after which the container ends itself, with nobody attached and no cell run."""
    options: ContainerOptions = field(default_factory=ContainerOptions)


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """What an engine knows of one container."""

    name: str
    labels: Mapping[str, str]
    image: str
    state: Literal["starting", "running", "paused", "ended"]
    created: float
    """Unix time, seconds."""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """One session's lasting files."""

    name: str
    labels: Mapping[str, str]


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


class Engine(Protocol):
    """Creates, finds and removes containers. Every method may raise :class:`EngineUnavailable`.

    Nothing here blocks the event loop. A cancelled call may still take effect: names make that harmless.
    """

    name: str

    async def find_image(self, wanted: str | None, progress: Callable[[str], None]) -> str:
        """The reference of the image to run: ``wanted``, or the default one (None) or the example one (``example``).

        The latter two are built when they are missing; ``progress`` gets a line for each step of that.

        :raises ImageMissing: the engine does not have it, and it is none of those two.
        :raises ImageBuildFailed: it could not be built.
        """

    async def create(self, spec: ContainerSpec) -> None:
        """Create and start a container, with its volume.

        :raises NameTaken: a container of this name exists.
        :raises ImageMissing: the engine does not have the image.
        :raises EngineError: anything else that the engine says, in its words.
        """

    async def exec(self, container: str) -> ExecStream:
        """Run the relay in a container.

        :raises ContainerGone: no such container, or it does not run.
        """

    async def inspect(self, container: str) -> ContainerInfo | None:
        """What is known of one container; None where there is none."""

    async def list(self, labels: Mapping[str, str]) -> Sequence[ContainerInfo]:
        """Every container, running or not, that carries these labels."""

    async def remove(self, container: str) -> None:
        """Kill and remove a container. Not an error where it is gone."""

    async def list_volumes(self, labels: Mapping[str, str]) -> Sequence[VolumeInfo]:
        """Every volume that carries these labels."""

    async def remove_volume(self, volume: str) -> None:
        """Remove a volume and the files in it. Not an error where it is gone."""

    async def version(self) -> str:
        """The engine's name and version, for people."""

    async def close(self) -> None:
        """Let go of connections and threads. Containers live on."""
