"""Sessions in Docker containers, through docker-py, whose blocking calls run in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from ..container_options import ContainerOptions
from ..errors import ContainerGone, EngineError, ImageMissing, NameTaken, SettingsError
from ..images import SESSION_IMAGES, ImageKind, ensure_image
from ..images.base import ensure_given_image
from . import docker_proxy, docker_volumes
from .base import RUNTIME_DIRECTORY, ContainerInfo, ContainerSpec, ExecStream, VolumeInfo, closed_if_cancelled
from .docker_binds import bind_mounts
from .docker_host import connect, resolve_docker_host, unavailable
from .docker_network import check_network
from .docker_stream import DockerExecStream
from .hardening import environment, hardened, user_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

PYTHON = "/opt/venv/bin/python"
SUPERVISOR = "/opt/kernel_image/supervisor.py"
RELAY = "/opt/kernel_image/relay.py"
FILE_DOOR = "/opt/kernel_image/file_door.py"
THREADS = 16
REQUEST_TIMEOUT = 60
SIZES_TIMEOUT = 900
"""Seconds: the daemon says nothing until it has walked every file of every volume."""
REMOVE_TIMEOUT = 20.0
LABEL_TICKET = "docker-interpreter.ticket"
STATES: Mapping[str, Literal["starting", "running", "paused", "ended"]] = {
    "created": "starting",
    "running": "running",
    "restarting": "starting",
    "paused": "paused",
}


class DockerEngine:
    """An :class:`~session_manager.engine.base.Engine` on a Docker daemon, near or far.

    ``docker_host``: ``unix://``, ``tcp://`` or ``ssh://``; None takes DOCKER_HOST, then the current docker context,
    then the default socket. Nothing is asked of the daemon before the first call. ``tap`` is given each stream that
    :meth:`exec` opens, and returns what takes its place.
    """

    name = "docker"

    def __init__(
        self, docker_host: str | None = None, *, tap: Callable[[ExecStream], ExecStream] | None = None
    ) -> None:
        self._tap = tap
        self._requested_host = docker_host
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._lock = threading.Lock()
        self._closed = False
        self._connected: docker.APIClient | None = None
        self._address = ""
        """Where it is connected to, as people know it: docker-py's client names an address of its own making."""

    async def find_image(self, wanted: str | None, progress: Callable[[str], None]) -> str:
        """See :meth:`Engine.find_image`."""
        if wanted is not None and wanted not in SESSION_IMAGES:
            return await self._long(lambda api: ensure_given_image(api, wanted, progress))
        kind = ImageKind(wanted or ImageKind.DEFAULT)
        return await self._long(lambda api: ensure_image(api, kind, progress=progress))

    async def prepare(self, options: ContainerOptions, progress: Callable[[str], None]) -> None:
        """See :meth:`Engine.prepare`: the proxy's image."""
        if options.network == "allowlist":
            await self._long(lambda api: ensure_image(api, ImageKind.PROXY, progress=progress))

    async def image_id(self, reference: str) -> str | None:
        """See :meth:`Engine.image_id`."""
        return await self._call(lambda api: self._image_id(api, reference))

    @staticmethod
    def _image_id(api: docker.APIClient, reference: str) -> str | None:
        try:
            return str(api.inspect_image(reference)["Id"])
        except NotFound:
            return None

    async def create(self, spec: ContainerSpec) -> None:
        """See :meth:`Engine.create`."""
        await self._call(lambda api: self._create(api, spec))

    def _create(self, api: docker.APIClient, spec: ContainerSpec) -> None:
        options = spec.options
        listed = options.network == "allowlist"
        proxy = ensure_image(api, ImageKind.PROXY, progress=logger.info) if listed else ""
        labels = {**spec.labels, **(docker_proxy.LABELS if listed else {})}
        check_network(api, options)
        binds = bind_mounts(api, self._address, options)
        # The daemon makes the volume after it has given the name away: whoever is told that the name is taken has
        # made nothing.
        workspace = docker.types.Mount(options.working_dir, spec.volume, type="volume", labels=dict(spec.labels))
        try:
            container = api.create_container(
                spec.image,
                name=spec.name,
                entrypoint=[PYTHON, "-Es", SUPERVISOR],
                command=[RUNTIME_DIRECTORY, options.working_dir, json.dumps(spec.supervision)],
                user=user_of(options),
                working_dir="/",
                hostname=options.hostname,
                environment=environment(options),
                labels=labels,
                stdin_open=False,
                network_disabled=options.network != "full",
                host_config=api.create_host_config(**hardened(options, [workspace, *binds])),
            )
        except ImageNotFound as error:
            raise image_missing(spec.image) from error
        except APIError as error:
            if error.status_code == 409:
                raise name_taken(spec.name) from error
            if options.runtime is not None and "runtime" in str(error.explanation):
                raise SettingsError(
                    f"The engine does not run containers under {options.runtime!r}: {error.explanation}.",
                    "`docker info` lists its runtimes.",
                ) from error
            raise
        try:
            api.start(container["Id"])
        except NotFound as error:
            raise ContainerGone(f"The container {spec.name} was removed before it was started.") from error
        except BaseException:
            # a container that never ran is not removed by the engine itself
            with contextlib.suppress(APIError):
                api.remove_container(container["Id"], force=True)
            raise
        if listed:
            self._start_proxy(api, spec, container["Id"], proxy)

    def _start_proxy(self, api: docker.APIClient, spec: ContainerSpec, container: str, image: str) -> None:
        try:
            docker_proxy.start(api, spec, container, image)
        except BaseException as error:
            found = self._inspect(api, container)
            with contextlib.suppress(APIError):
                self._remove(api, container)
                # where the session was gone already, nobody else does it
                docker_proxy.remove(api, docker_proxy.LABELS, container)
            if isinstance(error, APIError | EngineError) and (found is None or found.state != "running"):
                raise ContainerGone(f"The container {spec.name} ended as it started.") from error
            raise

    async def exec(self, container: str, *, observe: bool = False) -> ExecStream:
        """See :meth:`Engine.exec`."""
        command = [RELAY, RUNTIME_DIRECTORY, *(["observe"] if observe else [])]
        stream = await closed_if_cancelled(self._call(lambda api: self._exec(api, container, command)))
        return self._tap(stream) if self._tap is not None else stream

    async def open_files(self, container: str) -> ExecStream:
        """See :meth:`Engine.open_files`."""
        return await closed_if_cancelled(self._call(lambda api: self._open_files(api, container)))

    def _open_files(self, api: docker.APIClient, container: str) -> ExecStream:
        try:
            workspace = api.inspect_container(container)["Args"][-2]  # as create() gave it to the supervisor
        except NotFound as error:
            raise ContainerGone(f"The container {container} does not run.") from error
        return self._exec(api, container, [FILE_DOOR, workspace])

    async def open_volume_files(
        self, volume: str, image: str, labels: Mapping[str, str], *, read_only: bool
    ) -> ExecStream:
        """See :meth:`Engine.open_volume_files`. The container is removed as its program ends."""

        def start(api: docker.APIClient) -> ExecStream:
            try:
                return docker_volumes.open_files(api, volume, image, labels, [PYTHON, "-IS", FILE_DOOR], read_only)
            except ImageNotFound as error:
                raise image_missing(image) from error

        return await closed_if_cancelled(self._call(start))

    def _exec(self, api: docker.APIClient, container: str, command: Sequence[str]) -> ExecStream:
        try:
            execution = api.exec_create(
                container,
                [PYTHON, "-IS", *command],
                stdin=True,
                stdout=True,
                stderr=True,
                workdir="/",
            )
            return DockerExecStream(api.exec_start(execution["Id"], socket=True))
        except APIError as error:
            # 500: it was being removed as the exec began, which has no code of its own (Docker 20.10)
            if error.status_code in (404, 409) or "is not running" in str(error.explanation):
                raise ContainerGone(f"The container {container} does not run ({error.explanation}).") from error
            raise

    async def inspect(self, container: str) -> ContainerInfo | None:
        """See :meth:`Engine.inspect`."""
        return await self._call(lambda api: self._inspect(api, container))

    @staticmethod
    def _inspect(api: docker.APIClient, container: str) -> ContainerInfo | None:
        try:
            found: dict[str, Any] = api.inspect_container(container)
        except NotFound:
            return None
        return ContainerInfo(
            id=found["Id"],
            name=found["Name"].lstrip("/"),
            labels=found["Config"]["Labels"] or {},
            image=found["Config"]["Image"],
            image_id=found["Image"],
            state=STATES.get(found["State"]["Status"], "ended"),
            # nanoseconds, which Python 3.11 does not read
            created=datetime.fromisoformat(found["Created"][:19] + "+00:00").timestamp(),
            volumes=volume_names(found["Mounts"]),
        )

    async def list(self, labels: Mapping[str, str]) -> Sequence[ContainerInfo]:
        """See :meth:`Engine.list`. One request, whatever the number."""
        found: list[dict[str, Any]] = await self._call(
            lambda api: api.containers(all=True, filters={"label": label_filters(labels)})
        )
        return [
            ContainerInfo(
                id=one["Id"],
                name=one["Names"][0].lstrip("/"),
                labels=one["Labels"],
                image=one["Image"],
                image_id=one["ImageID"],
                state=STATES.get(one["State"], "ended"),
                created=float(one["Created"]),
                volumes=volume_names(one["Mounts"]),
            )
            for one in found
            if one["Names"]
        ]

    async def remove(self, container: str) -> None:
        """See :meth:`Engine.remove`. Returns when the name is free again."""
        await self._call(lambda api: self._remove(api, container))

    @staticmethod
    def _remove(api: docker.APIClient, container: str) -> None:
        deadline = time.monotonic() + REMOVE_TIMEOUT
        try:
            found: dict[str, Any] = api.inspect_container(container)
        except NotFound:
            return
        while True:
            try:
                api.remove_container(container, force=True)
            except NotFound:
                docker_proxy.remove(api, found["Config"]["Labels"] or {}, found["Id"])
                return
            except APIError as error:
                # 409: the engine is removing it already, since it ended by itself
                if error.status_code != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    async def rename(self, container: str, name: str) -> None:
        """See :meth:`Engine.rename`."""
        await self._call(lambda api: self._rename(api, container, name))

    @staticmethod
    def _rename(api: docker.APIClient, container: str, name: str) -> None:
        """Rename a container while nobody else does.

        The daemon looks a container up before it locks it, so that it lets several callers rename the same one, each
        from the name that the one before gave it, and tells all that it is done. A volume is made once only: whoever
        made this one may ask for the new name. What a caller leaves that ends before it removed it carries the
        container's labels, and looks like a volume of a container that is gone.
        """
        ticket, mine = f"{container}-renaming", uuid.uuid4().hex
        try:
            labels = api.inspect_container(container)["Config"]["Labels"] or {}
            if docker_volumes.create_volume(api, ticket, {**labels, LABEL_TICKET: mine}).labels[LABEL_TICKET] != mine:
                raise ContainerGone(f"Another caller renames the container {container}.")
            try:
                api.rename(container, name)
            finally:
                docker_volumes.remove_volume(api, ticket)
        except NotFound as error:
            raise ContainerGone(f"There is no container {container}.") from error
        except APIError as error:
            if error.status_code == 409 or name == container:
                raise name_taken(name) from error
            raise

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> VolumeInfo:
        """See :meth:`Engine.create_volume`."""
        return await self._call(lambda api: docker_volumes.create_volume(api, name, labels))

    async def inspect_volume(self, name: str) -> VolumeInfo | None:
        """See :meth:`Engine.inspect_volume`."""
        return await self._call(lambda api: docker_volumes.inspect_volume(api, name))

    async def list_volumes(self, labels: Mapping[str, str]) -> Sequence[VolumeInfo]:
        """See :meth:`Engine.list_volumes`."""
        return await self._call(lambda api: docker_volumes.list_volumes(api, label_filters(labels)))

    async def remove_volume(self, volume: str) -> None:
        """See :meth:`Engine.remove_volume`."""
        await self._call(lambda api: docker_volumes.remove_volume(api, volume))

    async def copy_volume(self, source: str, target: str, image: str, labels: Mapping[str, str]) -> None:
        """See :meth:`Engine.copy_volume`. The files never pass through this machine."""
        name = f"{target}-copy-{uuid.uuid4().hex[:12]}"
        pause = 0.05
        try:
            await self._call(lambda api: self._start_copy(api, name, source, target, image, labels))
            while not await self._call(lambda api: docker_volumes.copy_ended(api, name)):
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 1.5)
        finally:
            await self.remove(name)

    @staticmethod
    def _start_copy(
        api: docker.APIClient, name: str, source: str, target: str, image: str, labels: Mapping[str, str]
    ) -> None:
        try:
            docker_volumes.start_copy(api, name, source, target, image, labels)
        except ImageNotFound as error:
            raise image_missing(image) from error

    async def volume_sizes(self, names: Collection[str]) -> Mapping[str, int]:
        """See :meth:`Engine.volume_sizes`. One request, which takes the daemon long where there are many files."""

        def ask(_: docker.APIClient) -> Mapping[str, int]:
            with contextlib.closing(connect(self._requested_host, timeout=SIZES_TIMEOUT)) as patient:
                return docker_volumes.volume_sizes(patient, names, SIZES_TIMEOUT)

        return await self._call(ask) if names else {}

    async def version(self) -> str:
        """See :meth:`Engine.version`."""
        found: dict[str, Any] = await self._call(lambda api: api.version())
        return f"Docker {found['Version']} (API {found['ApiVersion']}, {found['Os']}/{found['Arch']})"

    async def call(self, function: Callable[[docker.APIClient], T]) -> T:
        """Run a blocking function of this package with the engine's client, in a thread (image builds).

        :raises EngineUnavailable: nothing answers.
        """
        return await self._call(function)

    async def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._closed = True
        self._threads.shutdown(wait=False)
        if self._connected is not None:
            self._connected.close()

    async def _call(self, function: Callable[[docker.APIClient], T]) -> T:
        try:
            call = asyncio.get_running_loop().run_in_executor(self._threads, self._guarded, function)
        except RuntimeError:
            if self._closed:
                raise
            # the interpreter is ending: no thread is started any more, and no task is left to be held up
            return self._guarded(function)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            # what the engine was asked for happens all the same: who cleans up after us must come after it
            await asyncio.wait([call])
            if not call.cancelled() and (error := call.exception()) is not None:
                logger.debug("what a caller who has gone asked for failed: %s", error)
            raise

    def _long(self, function: Callable[[docker.APIClient], T]) -> asyncio.Future[T]:
        """A build or a pull, which takes minutes: a cancelled caller does not wait for its end."""
        return asyncio.get_running_loop().run_in_executor(self._threads, self._guarded, function)

    def _guarded(self, function: Callable[[docker.APIClient], T]) -> T:
        """Turn what docker-py and the wire raise into this package's errors."""
        with self._lock:
            if self._connected is None:
                self._address = resolve_docker_host(self._requested_host)
                self._connected = connect(self._requested_host, timeout=REQUEST_TIMEOUT, max_pool_size=THREADS)
        try:
            return function(self._connected)
        except APIError as error:
            raise EngineError(f"The container engine refused: {error.explanation or error}") from error
        except (DockerException, requests.exceptions.RequestException, OSError) as error:
            raise unavailable(self._address, error) from error


def image_missing(reference: str) -> ImageMissing:
    """What to raise where the engine does not have an image."""
    return ImageMissing(
        f"The engine has no image {reference!r}.",
        "Pull it or build it, or leave the setting away: `docker-interpreter image build` makes the default one.",
    )


def name_taken(name: str) -> NameTaken:
    """What to raise where a container has the name."""
    return NameTaken(f"A container named {name} exists already.")


def volume_names(mounts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The volumes among a container's mounts."""
    return tuple(mount["Name"] for mount in mounts if mount["Type"] == "volume")


def label_filters(labels: Mapping[str, str]) -> list[str]:
    """The engine's words for 'carries all these labels'."""
    return [f"{name}={value}" for name, value in labels.items()]
