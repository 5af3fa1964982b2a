"""Folders of the host in containers: what the settings allow, looked at again where the engine is known."""

from __future__ import annotations

import os

import docker
from docker.errors import APIError

from ..bound_folders import BoundFolder, is_within
from ..container_options import ContainerOptions
from ..errors import SettingsError


def bind_mounts(api: docker.APIClient, address: str, options: ContainerOptions) -> list[docker.types.Mount]:
    """The host's folders that the admin binds. One that is missing there is an error: it is not made.

    ``address``: the engine's.

    :raises SettingsError: by now a folder hands the host over, as a link was changed; or the engine's own files, or
        its socket, are in it.
    """
    if not options.volumes:
        return []
    try:
        folders = [BoundFolder.parse(text) for text in options.volumes]
    except ValueError as error:
        raise SettingsError(f"container.volumes {error}.") from None
    files = engines_files(api)
    socket = address.removeprefix("unix://") if address.startswith("unix://") else None
    for folder in folders:
        for path in {folder.source, os.path.realpath(folder.source)}:
            if files is not None and (is_within(path, files) or is_within(files, path)):
                raise SettingsError(f"container.volumes should not bind {path}: the engine's own files are in {files}.")
            if socket is not None and is_within(os.path.realpath(socket), path):
                raise SettingsError(f"container.volumes should not bind {path}: the engine listens at {socket}.")
    return [
        docker.types.Mount(folder.target, folder.source, type="bind", read_only=folder.mode == "ro")
        for folder in folders
    ]


def engines_files(api: docker.APIClient) -> str | None:
    """Where the engine keeps images, containers and volumes on its host; None where it can't be asked."""
    try:
        return str(api.info()["DockerRootDir"])
    except (APIError, KeyError):
        return None  # a proxy before its socket may not let the question through
