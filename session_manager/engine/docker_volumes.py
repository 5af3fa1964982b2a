"""Volumes of a Docker daemon: blocking functions on docker-py's client, for the engine to run in its threads."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from ..container_options import ContainerOptions
from ..errors import EngineError, VolumeInUse
from .base import VolumeInfo
from .docker_stream import DockerExecStream
from .hardening import USER, hardened

SOURCE = "/source"
TARGET = ContainerOptions().working_dir
"""Images have this directory, the sandbox's user's own: an empty volume takes its owner over when it is mounted."""
LAST_LINES = 20
MEASURING = "disk usage operation is already running"
MEASURING_POLL = 0.1
VISIT_ENDS = 5.0
"""Seconds in which a container goes whose program has ended."""

logger = logging.getLogger(__name__)


def create_volume(api: docker.APIClient, name: str, labels: Mapping[str, str]) -> VolumeInfo:
    """The volume of this name, made where it is missing; the daemon answers with the one there is."""
    return as_volume(api.create_volume(name, labels=dict(labels)))


def inspect_volume(api: docker.APIClient, name: str) -> VolumeInfo | None:
    """One volume, or None."""
    try:
        return as_volume(api.inspect_volume(name))
    except NotFound:
        return None


def list_volumes(api: docker.APIClient, filters: Sequence[str]) -> list[VolumeInfo]:
    """Every volume with these labels."""
    found: dict[str, Any] = api.volumes(filters={"label": list(filters)})
    return [as_volume(one) for one in found["Volumes"] or ()]


def remove_volume(api: docker.APIClient, name: str) -> None:
    """Remove a volume that may be gone already.

    :raises VolumeInUse: a container has it.
    """
    try:
        with contextlib.suppress(NotFound):
            api.remove_volume(name)
    except APIError as error:
        if error.status_code == 409:
            raise VolumeInUse(f"A container has the volume {name}.", "Remove the container first.") from error
        raise


def volume_sizes(api: docker.APIClient, names: Collection[str], patience: float) -> dict[str, int]:
    """Bytes of each volume that the daemon knows the size of.

    Older daemons measure for one caller at a time, and refuse the others. Those wait: ``patience`` seconds at most.
    """
    wanted = frozenset(names)
    deadline = time.monotonic() + patience
    while True:
        try:
            found = api.df()["Volumes"] or ()
            break
        except APIError as error:
            if MEASURING not in str(error.explanation) or time.monotonic() > deadline:
                raise
            time.sleep(MEASURING_POLL)
    sizes = {one["Name"]: int((one.get("UsageData") or {}).get("Size", -1)) for one in found if one["Name"] in wanted}
    return {name: size for name, size in sizes.items() if size >= 0}


def start_copy(
    api: docker.APIClient, name: str, source: str, target: str, image: str, labels: Mapping[str, str]
) -> None:
    """Start a container that copies one volume's files into another.

    :raises ImageNotFound: the daemon does not have the image.
    :raises EngineError: a volume is missing, which mounting it would make.
    """
    for volume in (source, target):
        if inspect_volume(api, volume) is None:
            raise EngineError(f"There is no volume {volume} to copy files from or to.")
    mounts = [
        docker.types.Mount(SOURCE, source, type="volume", read_only=True, no_copy=True),
        docker.types.Mount(TARGET, target, type="volume"),
    ]
    # what it wrote, and how it ended, is asked for after its end
    configuration = {**hardened(ContainerOptions(), mounts), "auto_remove": False}
    container = api.create_container(
        image,
        name=name,
        entrypoint=["cp"],
        command=["-a", "--", f"{SOURCE}/.", f"{TARGET}/"],
        user=USER,
        working_dir="/",
        labels=dict(labels),
        stdin_open=False,
        network_disabled=True,
        host_config=api.create_host_config(**configuration),
    )
    api.start(container["Id"])


class VisitStream(DockerExecStream):
    """The stream of a container that serves a volume's files. Once it is closed, nothing has the volume any more."""

    def __init__(self, raw: Any, api: docker.APIClient, container: str) -> None:
        super().__init__(raw)
        self._api = api
        self._container = container

    def close(self) -> None:
        """See :meth:`ExecStream.close`. Waits for the container's end, for a few seconds."""
        super().close()
        deadline = time.monotonic() + VISIT_ENDS
        try:
            while time.monotonic() < deadline:
                self._api.inspect_container(self._container)
                time.sleep(0.02)
        except (DockerException, requests.exceptions.RequestException, OSError) as error:
            if not isinstance(error, NotFound):
                logger.debug("the end of %s was not seen: %s", self._container, error)


def open_files(
    api: docker.APIClient,
    volume: str,
    image: str,
    labels: Mapping[str, str],
    command: Sequence[str],
    read_only: bool,
) -> VisitStream:
    """Start a container whose program serves a volume's files, and ends with its input; the stream of that.

    :raises ImageNotFound: the daemon does not have the image.
    :raises EngineError: the volume is missing, which mounting it would make.
    """
    if inspect_volume(api, volume) is None:
        raise EngineError(f"There is no volume {volume}.")
    mount = docker.types.Mount(TARGET, volume, type="volume", read_only=read_only, no_copy=True)
    container = api.create_container(
        image,
        name=f"{volume}-files-{uuid.uuid4().hex[:12]}",
        entrypoint=list(command),
        command=[TARGET, *(["read-only"] if read_only else [])],
        user=USER,
        working_dir="/",
        labels=dict(labels),
        # the daemon closes the program's input when whoever is attached goes, however that ends
        stdin_open=True,
        network_disabled=True,
        host_config=api.create_host_config(**hardened(ContainerOptions(), [mount])),
    )
    stream = None
    try:
        attached = api.attach_socket(container["Id"], {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        stream = VisitStream(attached, api, container["Id"])
        api.start(container["Id"])
    except BaseException:
        # a container that never ran is not removed by the engine itself
        with contextlib.suppress(APIError):
            api.remove_container(container["Id"], force=True)
        if stream is not None:
            stream.close()
        raise
    return stream


def copy_ended(api: docker.APIClient, name: str) -> bool:
    """Whether all was copied; False while it is going on.

    :raises EngineError: it could not be, with the end of what ``cp`` says.
    """
    try:
        state: dict[str, Any] = api.inspect_container(name)["State"]
    except NotFound:
        raise EngineError(f"The container {name} was removed while it copied files.") from None
    if state["Status"] not in ("exited", "dead"):
        return False
    if state["ExitCode"] == 0:
        return True
    words = bytes(api.logs(name, tail=LAST_LINES)).decode(errors="replace").strip()
    raise EngineError(f"Copying a session's files failed: {words or 'exit code ' + str(state['ExitCode'])}")


def as_volume(found: Mapping[str, Any]) -> VolumeInfo:
    """The daemon's description in the engines' common words."""
    created = found.get("CreatedAt")
    return VolumeInfo(
        name=found["Name"],
        labels=found["Labels"] or {},
        created=datetime.fromisoformat(created).timestamp() if created else 0.0,
    )
