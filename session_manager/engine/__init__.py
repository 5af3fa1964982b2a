"""How containers come to be. The only package that knows Docker."""

from __future__ import annotations

import logging

from ..settings import Settings
from .base import ContainerInfo, ContainerSpec, Engine, ExecStream, VolumeInfo

__all__ = ["ContainerInfo", "ContainerSpec", "Engine", "ExecStream", "VolumeInfo", "make_engine"]

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
    from .docker import DockerEngine

    return DockerEngine(settings.docker_host)
