"""Sessions in Docker containers, through docker-py, whose blocking calls run in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from ..errors import ContainerGone, EngineError, ImageMissing, NameTaken
from ..images import ImageKind, ensure_image
from ..images.base import has_image
from ..settings import ContainerOptions
from .base import RUNTIME_DIRECTORY, ContainerInfo, ContainerSpec, ExecStream, VolumeInfo
from .docker_host import connect, unavailable
from .docker_stream import DockerExecStream

T = TypeVar("T")

PYTHON = "/opt/venv/bin/python"
SUPERVISOR = "/opt/kernel_image/supervisor.py"
RELAY = "/opt/kernel_image/relay.py"
HOME = "/home/python"
USER_ID = 1000
THREADS = 16
REQUEST_TIMEOUT = 60
REMOVE_TIMEOUT = 20.0
STATES: Mapping[str, Literal["starting", "running", "paused", "ended"]] = {
    "created": "starting",
    "running": "running",
    "restarting": "starting",
    "paused": "paused",
}


class DockerEngine:
    """An :class:`~session_manager.engine.base.Engine` on a Docker daemon, near or far.

    ``docker_host``: ``unix://``, ``tcp://`` or ``ssh://``; None takes DOCKER_HOST, then the current docker context,
    then the default socket. Nothing is asked of the daemon before the first call.
    """

    name = "docker"

    def __init__(self, docker_host: str | None = None) -> None:
        self._requested_host = docker_host
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self._lock = threading.Lock()
        self._closed = False
        self._connected: docker.APIClient | None = None

    async def find_image(self, wanted: str | None, progress: Callable[[str], None]) -> str:
        """See :meth:`Engine.find_image`."""
        if wanted is not None and wanted not in list(ImageKind):
            if not await self._call(lambda api: has_image(api, wanted)):
                raise image_missing(wanted)
            return wanted
        kind = ImageKind(wanted or ImageKind.DEFAULT)
        # a build takes minutes: a cancelled caller does not wait for its end
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._guarded, lambda api: ensure_image(api, kind, progress=progress)
        )

    async def create(self, spec: ContainerSpec) -> None:
        """See :meth:`Engine.create`."""
        await self._call(lambda api: self._create(api, spec))

    def _create(self, api: docker.APIClient, spec: ContainerSpec) -> None:
        api.create_volume(spec.volume, labels=dict(spec.labels))
        options = spec.options
        try:
            container = api.create_container(
                spec.image,
                name=spec.name,
                entrypoint=[PYTHON, "-Es", SUPERVISOR],
                command=[RUNTIME_DIRECTORY, options.working_dir, str(spec.idle_timeout)],
                user=f"{USER_ID}:{USER_ID}",
                working_dir="/",
                hostname=options.hostname,
                environment=environment(options),
                labels=dict(spec.labels),
                stdin_open=False,
                network_disabled=options.network_disabled,
                host_config=api.create_host_config(**hardened(spec)),
            )
        except ImageNotFound as error:
            raise image_missing(spec.image) from error
        except APIError as error:
            if error.status_code == 409:
                raise NameTaken(f"A container named {spec.name} exists already.") from error
            raise
        try:
            api.start(container["Id"])
        except BaseException:
            # a container that never ran is not removed by the engine itself
            with contextlib.suppress(APIError):
                api.remove_container(container["Id"], force=True)
            raise

    async def exec(self, container: str) -> ExecStream:
        """See :meth:`Engine.exec`."""
        return await self._call(lambda api: self._exec(api, container))

    def _exec(self, api: docker.APIClient, container: str) -> ExecStream:
        try:
            execution = api.exec_create(
                container,
                [PYTHON, "-IS", RELAY, RUNTIME_DIRECTORY],
                stdin=True,
                stdout=True,
                stderr=True,
                user=f"{USER_ID}:{USER_ID}",
                workdir="/",
            )
            return DockerExecStream(api.exec_start(execution["Id"], socket=True))
        except APIError as error:
            if error.status_code in (404, 409):
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
            name=found["Name"].lstrip("/"),
            labels=found["Config"]["Labels"] or {},
            image=found["Config"]["Image"],
            state=STATES.get(found["State"]["Status"], "ended"),
            # nanoseconds, which Python 3.11 does not read
            created=datetime.fromisoformat(found["Created"][:19] + "+00:00").timestamp(),
        )

    async def list(self, labels: Mapping[str, str]) -> Sequence[ContainerInfo]:
        """See :meth:`Engine.list`. One request, whatever the number."""
        found: list[dict[str, Any]] = await self._call(
            lambda api: api.containers(all=True, filters={"label": label_filters(labels)})
        )
        return [
            ContainerInfo(
                name=one["Names"][0].lstrip("/"),
                labels=one["Labels"],
                image=one["Image"],
                state=STATES.get(one["State"], "ended"),
                created=float(one["Created"]),
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
        while True:
            try:
                api.remove_container(container, force=True)
            except NotFound:
                return
            except APIError as error:
                # 409: the engine is removing it already, since it ended by itself
                if error.status_code != 409 or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    async def list_volumes(self, labels: Mapping[str, str]) -> Sequence[VolumeInfo]:
        """See :meth:`Engine.list_volumes`."""
        found: dict[str, Any] = await self._call(lambda api: api.volumes(filters={"label": label_filters(labels)}))
        return [VolumeInfo(one["Name"], one["Labels"] or {}) for one in found["Volumes"] or ()]

    async def remove_volume(self, volume: str) -> None:
        """See :meth:`Engine.remove_volume`."""
        await self._call(lambda api: self._remove_volume(api, volume))

    @staticmethod
    def _remove_volume(api: docker.APIClient, volume: str) -> None:
        with contextlib.suppress(NotFound):
            api.remove_volume(volume)

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
            raise

    def _guarded(self, function: Callable[[docker.APIClient], T]) -> T:
        """Turn what docker-py and the wire raise into this package's errors."""
        with self._lock:
            if self._connected is None:
                self._connected = connect(self._requested_host, timeout=REQUEST_TIMEOUT, max_pool_size=THREADS)
        try:
            return function(self._connected)
        except APIError as error:
            raise EngineError(f"The container engine refused: {error.explanation or error}") from error
        except (DockerException, requests.exceptions.RequestException, OSError) as error:
            raise unavailable(self._connected.base_url, error) from error


def image_missing(reference: str) -> ImageMissing:
    """What to raise where the engine does not have an image."""
    return ImageMissing(
        f"The engine has no image {reference!r}.",
        "Pull it or build it, or leave the setting away: `docker-interpreter image build` makes the default one.",
    )


def label_filters(labels: Mapping[str, str]) -> list[str]:
    """The engine's words for 'carries all these labels'."""
    return [f"{name}={value}" for name, value in labels.items()]


def environment(options: ContainerOptions) -> dict[str, str]:
    """The environment of a container: places to write on a read-only root, and what the admin added. No secrets."""
    return {
        "HOME": HOME,
        "IPYTHONDIR": f"{HOME}/.ipython",
        "MPLCONFIGDIR": f"{HOME}/.matplotlib",
        "PYTHONDONTWRITEBYTECODE": "1",
        **options.environment,
    }


def hardened(spec: ContainerSpec) -> dict[str, Any]:
    """Host configuration, in docker-py's words, of a container that code nobody trusts may run in."""
    options = spec.options
    own = f"uid={USER_ID},gid={USER_ID}"
    return {
        "auto_remove": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "network_mode": "none" if options.network_disabled else "bridge",
        "ipc_mode": "private",
        "init": False,
        "mem_limit": options.mem_limit,
        # equal to the memory limit: no swap on top of it
        "memswap_limit": options.mem_limit,
        "nano_cpus": options.nano_cpus,
        "pids_limit": options.pids_limit,
        "shm_size": options.shm_size,
        "oom_score_adj": 500,
        "runtime": options.runtime,
        "ulimits": [
            docker.types.Ulimit(name="core", soft=0, hard=0),
            docker.types.Ulimit(name="nofile", soft=4096, hard=4096),
        ],
        # what the supervisor says, which is little; a kernel's own output never gets there
        "log_config": docker.types.LogConfig(type="json-file", config={"max-size": "1m", "max-file": "1"}),
        "tmpfs": {
            "/tmp": f"rw,nosuid,nodev,exec,size={options.tmp_size},mode=1777",  # noqa: S108 - inside the container
            HOME: f"rw,nosuid,nodev,exec,size={options.home_size},mode=0700,{own}",
            RUNTIME_DIRECTORY: f"rw,nosuid,nodev,noexec,size=1m,mode=0700,{own}",
        },
        "mounts": [docker.types.Mount(options.working_dir, spec.volume, type="volume")],
    }
