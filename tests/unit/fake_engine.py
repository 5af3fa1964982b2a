"""An engine in memory, for tests of what is decided rather than of what an engine does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from session_manager import ContainerGone, EngineError, NameTaken, VolumeInUse
from session_manager.container_options import ContainerOptions
from session_manager.engine import ContainerInfo, ContainerSpec, ExecStream, VolumeInfo

IMAGE = "image:1"
IMAGE_ID = "sha256:1"


class FakeEngine:
    """An :class:`~session_manager.engine.Engine` that holds names, labels, times and sizes, and runs nothing.

    ``now`` is its clock. Every call gives the others a turn before it takes effect, which it does in one step, as on a
    real engine; ``before`` is called with the method's name and its first argument at that point, and may change things
    or raise. ``calls`` has what was asked.
    """

    name = "fake"

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.containers: dict[str, ContainerInfo] = {}
        self.volumes: dict[str, VolumeInfo] = {}
        self.sizes: dict[str, int] = {}
        self.copied: list[tuple[str, str]] = []
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda method, name: None
        self._serial = 0

    async def _turn(self, method: str, name: str = "") -> None:
        await asyncio.sleep(0)
        self.calls.append((method, name))
        self.before(method, name)

    def clock(self) -> float:
        """The engine's time, for those who take a clock."""
        return self.now

    def add_container(
        self,
        name: str,
        labels: Mapping[str, str],
        volumes: Sequence[str] = (),
        state: Literal["starting", "running", "paused", "ended"] = "running",
    ) -> ContainerInfo:
        """A container that is there."""
        self._serial += 1
        info = ContainerInfo(
            id=str(self._serial),
            name=name,
            labels=dict(labels),
            image=IMAGE,
            image_id=IMAGE_ID,
            state=state,
            created=self.now,
            volumes=tuple(volumes),
        )
        self.containers[name] = info
        return info

    def add_volume(self, name: str, labels: Mapping[str, str], size: int = 0) -> VolumeInfo:
        """A volume that is there, with its labels and age if it was there before."""
        self.sizes.setdefault(name, size)
        return self.volumes.setdefault(name, VolumeInfo(name, dict(labels), self.now))

    def remove_now(self, container: str) -> None:
        """A container ends, and is gone."""
        self.containers.pop(container, None)

    async def find_image(self, wanted: str | None, progress: Callable[[str], None]) -> str:
        await self._turn("find_image", wanted or "")
        return wanted or IMAGE

    async def prepare(self, options: ContainerOptions, progress: Callable[[str], None]) -> None:
        await self._turn("prepare", options.network)

    async def image_id(self, reference: str) -> str | None:
        await self._turn("image_id", reference)
        return IMAGE_ID if reference == IMAGE else None

    async def create(self, spec: ContainerSpec) -> None:
        await self._turn("create", spec.name)
        if spec.name in self.containers:
            raise NameTaken(f"{spec.name} is taken.")
        self.add_volume(spec.volume, spec.labels)
        self.add_container(spec.name, spec.labels, [spec.volume])

    async def exec(self, container: str) -> ExecStream:
        await self._turn("exec", container)
        raise ContainerGone(f"Nothing runs in {container}.")

    async def inspect(self, container: str) -> ContainerInfo | None:
        await self._turn("inspect", container)
        return self.containers.get(container)

    async def list(self, labels: Mapping[str, str]) -> Sequence[ContainerInfo]:
        await self._turn("list")
        return [one for one in self.containers.values() if labels.items() <= one.labels.items()]

    async def remove(self, container: str) -> None:
        await self._turn("remove", container)
        self.remove_now(container)

    async def rename(self, container: str, name: str) -> None:
        await self._turn("rename", container)
        if container not in self.containers:
            raise ContainerGone(f"There is no {container}.")
        if name in self.containers:
            raise NameTaken(f"{name} is taken.")
        self.containers[name] = replace(self.containers.pop(container), name=name)

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> VolumeInfo:
        await self._turn("create_volume", name)
        return self.add_volume(name, labels)

    async def inspect_volume(self, name: str) -> VolumeInfo | None:
        await self._turn("inspect_volume", name)
        return self.volumes.get(name)

    async def list_volumes(self, labels: Mapping[str, str]) -> Sequence[VolumeInfo]:
        await self._turn("list_volumes")
        return [one for one in self.volumes.values() if labels.items() <= one.labels.items()]

    async def remove_volume(self, volume: str) -> None:
        await self._turn("remove_volume", volume)
        if any(volume in one.volumes for one in self.containers.values()):
            raise VolumeInUse(f"{volume} is in use.")
        self.volumes.pop(volume, None)
        self.sizes.pop(volume, None)

    async def copy_volume(self, source: str, target: str, image: str, labels: Mapping[str, str]) -> None:
        await self._turn("copy_volume", source)
        for name in (source, target):
            if name not in self.volumes:
                raise EngineError(f"There is no {name}.")
        self.sizes[target] = self.sizes[source]
        self.copied.append((source, target))

    async def volume_sizes(self, names: Collection[str]) -> Mapping[str, int]:
        await self._turn("volume_sizes")
        return {name: self.sizes[name] for name in names if name in self.volumes}

    async def version(self) -> str:
        await self._turn("version")
        return "fake"

    async def close(self) -> None:
        """Nothing to let go of."""
