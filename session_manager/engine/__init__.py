"""How containers come to be. The only package that knows Docker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import SettingsError
from ..settings import Settings
from .base import ContainerInfo, ContainerSpec, Engine, ExecStream, VolumeInfo

if TYPE_CHECKING:
    from .docker import DockerEngine

__all__ = ["ContainerInfo", "ContainerSpec", "Engine", "ExecStream", "VolumeInfo", "docker_engine", "make_engine"]

logger = logging.getLogger("session_manager")

PROCESS_WARNING = (
    "The process engine gives no isolation: code runs as you, on this machine, with your files and network."
)


def make_engine(settings: Settings) -> Engine:
    """The engine that the settings name. Each engine's libraries are loaded only here, when it is asked for."""
    if settings.engine == "process":
        from .process import ProcessEngine

        logger.warning(PROCESS_WARNING)
        return ProcessEngine(settings)
    return docker_engine(settings)


def docker_engine(settings: Settings, *, tap: Callable[[ExecStream], ExecStream] | None = None) -> DockerEngine:
    """The engine that holds images, for those who build them; or, with a ``tap``, who watch its streams.

    :raises SettingsError: the settings name another.
    """
    if settings.engine != "docker":
        raise SettingsError(
            f"The {settings.engine} engine has no images: what runs there is this machine's own Python.",
            "Use --engine docker.",
        )
    from .docker import DockerEngine

    return DockerEngine(settings.docker_host, tap=tap)
