"""Who is on the engine: names and labels, and what a listing of them tells.

The engine is the registry, there is no other. A session is

- a **container**, whose name is the session's lock: two programs can't both make it, or rename another one to it;
- a **record**, a volume named like the container, whose labels say whose session it is. It is there for as long as
  the session has files. As a volume is made only where there is none of its name, the first program to record a
  session decides what it is;
- a **workspace**, the volume with the files: the one that the record's label names, since the container came from the
  pool with it, or else the record itself;
- while it has no container, a **marker**, an empty volume that was made when a program first noticed: its age says
  since when the workspace is unused.

What the engine makes beside a container for its network, containers and volumes, names that by its id in a label.

A container that waits in the pool has a name and a volume of its own kind. Labels can't be changed: one that was
claimed keeps the pool's, so it is its name that tells, and the key is in the record.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .engine.base import LABEL_BESIDE, LABEL_SESSION, ContainerInfo, Engine, VolumeInfo
from .errors import SettingsError
from .settings import Settings, settings_hash

SCHEMA = "1"
LABEL_NAMESPACE = "docker-interpreter.namespace"
LABEL_KEY = "docker-interpreter.key"
LABEL_OWNER = "docker-interpreter.owner"
LABEL_SETTINGS = "docker-interpreter.settings"
LABEL_SCHEMA = "docker-interpreter.schema"
LABEL_LIFE = "docker-interpreter.life"
LABEL_WORKSPACE = "docker-interpreter.workspace"
"""Of a record: the volume that holds the files. Of a marker: the record of the session that it is about."""
KEPT, THROW_AWAY, POOL, UNUSED, COPY, BESIDE = "kept", "throw-away", "pool", "unused", "copy", "beside"
LONGEST_KEY = 512


@dataclass(frozen=True, slots=True)
class SessionName:
    """What a session is called: by people its key, and its owner where there is one; by the engine a name that is
    derived from both.

    One owner's sessions are apart from another's of the same keys, and from those that have no owner (""). Neither is
    a secret.
    """

    namespace: str
    key: str
    owner: str = ""

    def __post_init__(self) -> None:
        if not self.key or len(self.key) > LONGEST_KEY or not self.key.isprintable():
            raise SettingsError(
                f"{self.key[:40]!r} is no session key.",
                f"A key has 1 to {LONGEST_KEY} printable characters.",
            )
        if len(self.owner) > LONGEST_KEY or not self.owner.isprintable():
            raise SettingsError(
                f"{self.owner[:40]!r} is no owner of a session.",
                f"An owner has up to {LONGEST_KEY} printable characters.",
            )

    @property
    def container(self) -> str:
        """Unique to owner and key, and no more guessable from others than a hash is."""
        # No key holds the null character, so that no key alone reads like an owner's. With the length in front, no
        # owner and key read like another owner and key.
        text = f"\0{len(self.owner)}:{self.owner}{self.key}" if self.owner else self.key
        return f"{self.namespace}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    @property
    def volume(self) -> str:
        """The session's record, which is its workspace as well unless that came from the pool."""
        return self.container

    @property
    def marker(self) -> str:
        """The volume that is there while the workspace is unused."""
        return marker_of(self.namespace, self.container)

    def labels(self, settings: Settings, *, kept: bool) -> dict[str, str]:
        """What a later program finds the session by, and what its container was made from."""
        return {**self.record_labels(kept=kept), LABEL_SETTINGS: settings_hash(settings)}

    def record_labels(self, *, kept: bool, workspace: str | None = None) -> dict[str, str]:
        """Of the session's record; ``workspace`` is the volume with its files, where that is another."""
        return {
            LABEL_NAMESPACE: self.namespace,
            LABEL_KEY: self.key,
            LABEL_OWNER: self.owner,
            LABEL_SCHEMA: SCHEMA,
            LABEL_LIFE: KEPT if kept else THROW_AWAY,
            **({} if workspace in (None, self.volume) else {LABEL_WORKSPACE: str(workspace)}),
        }


def marker_of(namespace: str, container: str) -> str:
    """The name of the marker of the session whose container is called so."""
    return f"{namespace}-unused-{container.removeprefix(f'{namespace}-')}"


def pool_prefix(namespace: str) -> str:
    """What the names of the pool's containers and volumes begin with."""
    return f"{namespace}-pool-"


def labels_beside(namespace: str) -> dict[str, str]:
    """Of what an engine makes beside a session's container."""
    return {LABEL_NAMESPACE: namespace, LABEL_SCHEMA: SCHEMA, LABEL_LIFE: BESIDE}


def key_of(labels: Mapping[str, str]) -> str:
    """The session key that labels carry."""
    return labels.get(LABEL_KEY, "?")


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session as the listing shows it, with a container or without."""

    container_name: str
    """The name that its container has, or would have; its record has the same."""
    key: str
    """"?" where it can't be told: the program that claimed a container from the pool has not recorded it yet."""
    owner: str
    """"" where it has none."""
    kept: bool
    """False for throw-away sessions."""
    container: ContainerInfo | None
    record: VolumeInfo | None
    workspace: str | None
    """The volume with its files; None where it has no record."""
    marker: VolumeInfo | None

    @property
    def created(self) -> float:
        """Unix time, seconds, at which its container became its own; without one, what its record says."""
        times = [self.container.created] if self.container is not None else []
        # a record that holds the files as well has a time that moves with them
        if self.record is not None and (self.container is None or self.workspace != self.record.name):
            times.append(self.record.created)
        return max(times)

    @property
    def unused_since(self) -> float | None:
        """Unix time, seconds; None where it has a container, or nobody has noticed yet that it has none."""
        return self.marker.created if self.marker is not None and self.container is None else None


@dataclass(frozen=True, slots=True)
class Registry:
    """All that a namespace has on the engine, at one time."""

    namespace: str
    sessions: Mapping[str, SessionRecord]
    """By the name of their container."""
    pool: Sequence[ContainerInfo]
    """Containers that wait for a session."""
    pool_volumes: Sequence[VolumeInfo]
    """Volumes from the pool that neither a container nor a session has."""
    lone_markers: Sequence[VolumeInfo]
    """Markers of sessions that have no record any more."""
    copies: Sequence[ContainerInfo]
    """Containers that copy files."""
    lone_containers: Sequence[ContainerInfo]
    """Containers that were made beside another one, which is gone."""
    lone_volumes: Sequence[VolumeInfo]
    """Volumes that were made so."""
    incomplete: Collection[str]
    """Ids of sessions' containers that lack what was, or was to be, made beside them."""

    def find(self, name: SessionName) -> SessionRecord | None:
        """The session of this name."""
        return self.sessions.get(name.container)


async def read_registry(engine: Engine, namespace: str) -> Registry:
    """Everything with this namespace's label, in two requests, however much it is.

    Volumes come first: a container that is made meanwhile is seen, so that no volume looks unused that is in use.

    :raises EngineError: the engine can't be asked.
    """
    volumes = {found.name: found for found in await engine.list_volumes({LABEL_NAMESPACE: namespace})}
    containers = await engine.list({LABEL_NAMESPACE: namespace})
    is_session = re.compile(rf"{re.escape(namespace)}-[0-9a-f]{{32}}", re.ASCII).fullmatch
    running = {found.name: found for found in containers if is_session(found.name)}
    records = {name: found for name, found in volumes.items() if is_session(name)}
    sessions = {
        name: merge(name, running.get(name), records.get(name), volumes.get(marker_of(namespace, name)))
        for name in sorted({*running, *records})
    }
    # a copy into a volume of the pool is called after that
    pool = [found for found in containers if found.labels.get(LABEL_LIFE) == POOL and found.name not in running]
    used = {volume for found in containers for volume in found.volumes}
    used |= {session.workspace for session in sessions.values() if session.workspace is not None}
    markers = {marker_of(namespace, name) for name in records}
    # no id ever comes back, and what is beside a container is made after it
    ids = {found.id for found in containers}
    beside = [found for found in containers if found.labels.get(LABEL_LIFE) == BESIDE]
    count = Counter(found.labels.get(LABEL_SESSION) for found in beside if found.state == "running")
    volumes_beside = [found for found in volumes.values() if found.labels.get(LABEL_LIFE) == BESIDE]
    return Registry(
        namespace=namespace,
        sessions=sessions,
        pool=pool,
        pool_volumes=[
            found
            for name, found in volumes.items()
            if name.startswith(pool_prefix(namespace)) and name not in used and found not in volumes_beside
        ],
        lone_markers=[
            found for name, found in volumes.items() if found.labels.get(LABEL_LIFE) == UNUSED and name not in markers
        ],
        copies=[found for found in containers if found.labels.get(LABEL_LIFE) == COPY],
        lone_containers=[found for found in beside if found.labels.get(LABEL_SESSION) not in ids],
        lone_volumes=[found for found in volumes_beside if found.labels.get(LABEL_SESSION) not in ids],
        incomplete=[found.id for found in running.values() if count[found.id] < wanted_beside(found)],
    )


def wanted_beside(container: ContainerInfo) -> int:
    """How many containers the engine makes beside this one."""
    wanted = container.labels.get(LABEL_BESIDE, "")
    return int(wanted) if re.fullmatch("[0-9]", wanted, re.ASCII) else 0


def merge(
    name: str, container: ContainerInfo | None, record: VolumeInfo | None, marker: VolumeInfo | None
) -> SessionRecord:
    """A session from its container, its record, or both; the record knows better, as it can't be the pool's."""
    labels = record.labels if record is not None else container.labels if container is not None else {}
    return SessionRecord(
        container_name=name,
        key=key_of(labels),
        owner=labels.get(LABEL_OWNER, ""),
        kept=labels.get(LABEL_LIFE) != THROW_AWAY,
        container=container,
        record=record,
        workspace=None if record is None else workspace_in(record),
        marker=marker,
    )


def workspace_in(record: VolumeInfo) -> str:
    """The volume with the files of a recorded session."""
    return record.labels.get(LABEL_WORKSPACE, record.name)


async def workspace_of(engine: Engine, name: SessionName) -> str | None:
    """The volume with a session's files; None where it has none yet.

    :raises EngineError: the engine can't be asked.
    """
    record = await engine.inspect_volume(name.volume)
    return None if record is None else workspace_in(record)


async def record_session(engine: Engine, name: SessionName, *, kept: bool, workspace: str | None = None) -> str:
    """Record that a session's files are in ``workspace``, or in the record itself (None).

    Whoever is first decides: the volume that is recorded, which may be another. To be done again after a container
    was made on a workspace that was found: its removal may have begun before.

    :raises EngineError: the engine can't be asked.
    """
    labels = name.record_labels(kept=kept, workspace=workspace)
    return workspace_in(await engine.create_volume(name.volume, labels))


async def mark_unused(engine: Engine, namespace: str, container: str) -> VolumeInfo | None:
    """Note that the session whose container is called so has none; the marker, which may be an older one.

    None where the session was removed meanwhile, and there is nothing left to mark.

    :raises EngineError: the engine can't be asked.
    """
    labels = {LABEL_NAMESPACE: namespace, LABEL_SCHEMA: SCHEMA, LABEL_LIFE: UNUSED, LABEL_WORKSPACE: container}
    marker = await engine.create_volume(marker_of(namespace, container), labels)
    if await engine.inspect_volume(container) is not None:
        return marker  # who removes the record from now on removes the marker after it
    await engine.remove_volume(marker.name)
    return None


async def mark_used(engine: Engine, name: SessionName) -> None:
    """Forget that a workspace was unused. Whoever makes a container for one does this.

    Otherwise a session that ran between two looks of :class:`~session_manager.workspaces.Workspaces` would still count
    as unused since before it.

    :raises EngineError: the engine can't be asked.
    """
    await engine.remove_volume(name.marker)


async def remove_workspace(engine: Engine, namespace: str, container: str) -> bool:
    """Remove the files of the session whose container is called so, and with them its record; whether there was one.

    The record goes after the files, so that what a program leaves that ends half-way is found by it, and removed
    another time; the marker goes last, so that :func:`mark_unused` can tell whether it came too late.

    :raises VolumeInUse: a container has the files; they are still there.
    """
    record = await engine.inspect_volume(container)
    workspace = container if record is None else workspace_in(record)
    if workspace != container:
        await engine.remove_volume(workspace)
    if record is not None:
        await engine.remove_volume(container)
    await engine.remove_volume(marker_of(namespace, container))
    if record is None:
        return False
    if workspace != container:
        # A session that started meanwhile has the files' volume, made anew, and the engine did not know that it needs
        # its record.
        found = await engine.inspect(container)
        if found is not None and workspace in found.volumes:
            await engine.create_volume(container, record.labels)
    return True
