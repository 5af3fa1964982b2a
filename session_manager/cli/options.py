"""Options that several commands take, before the command's name or after it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..settings import Settings

PANEL = "Engine and settings"


class EngineName(StrEnum):
    """What sessions run in."""

    DOCKER = "docker"
    PROCESS = "process"


Engine = Annotated[
    EngineName | None,
    typer.Option(
        "--engine",
        show_default=False,
        help="Run sessions in docker containers (the default), or in plain processes of this machine: "
        "those have no isolation, code runs as you, with your files and network.",
        rich_help_panel=PANEL,
    ),
]
DockerHost = Annotated[
    str | None,
    typer.Option(
        "--docker-host",
        metavar="URL",
        show_default=False,
        help="The container engine's address, such as ssh://user@host. Default: DOCKER_HOST, then the "
        "current docker context, then the local socket.",
        rich_help_panel=PANEL,
    ),
]
Image = Annotated[
    str | None,
    typer.Option(
        "--image",
        metavar="IMAGE",
        show_default=False,
        help="The image that a new session runs on: default (Python alone), example (with packages for data "
        "analysis), or any image that is built on one of them.",
        rich_help_panel=PANEL,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        show_default=False,
        help="A YAML file of settings. Default: docker-interpreter.yaml here, then config.yaml in "
        "~/.config/docker-interpreter.",
        rich_help_panel=PANEL,
    ),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show log messages, and the traceback where something fails.", rich_help_panel=PANEL),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Owner = Annotated[
    str | None,
    typer.Option(
        "--owner",
        metavar="OWNER",
        show_default=False,
        help="Whose sessions: one owner's are apart from another's of the same keys, and from those that have none.",
    ),
]
FilesToPut = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        metavar="PATH",
        show_default=False,
        help="A file or folder to put beside the code first; can be given several times.",
    ),
]
ImageDir = Annotated[
    Path,
    typer.Option("--image-dir", metavar="DIR", help="Where images are written; made when there is one."),
]
IMAGE_DIR = Path("docker-interpreter-output")
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0,
        metavar="SECONDS",
        show_default=False,
        help="How long a cell may run before it is interrupted, and killed where that does not help; 0 for "
        "no limit. Default: limits.timeout of the settings, which is 120 where it is not set.",
    ),
]


@dataclass(frozen=True, slots=True)
class Common:
    """What was given for the options that several commands take; None where nothing was."""

    engine: EngineName | None = None
    docker_host: str | None = None
    image: str | None = None
    config: Path | None = None
    debug: bool = False

    def settings(self) -> Settings:
        """The settings of the file and the environment, with these over them.

        :raises SettingsError: one of them is wrong.
        """
        from ..settings import Settings

        given: dict[str, Any] = {
            "engine": self.engine.value if self.engine else None,
            "docker_host": self.docker_host,
            "image": self.image,
        }
        return Settings.load(self.config, **{name: value for name, value in given.items() if value is not None})


def combine(
    context: typer.Context,
    engine: EngineName | None,
    docker_host: str | None,
    config: Path | None,
    debug: bool,
    image: str | None = None,
) -> Common:
    """The options given before and after the command's name; those after it win."""
    before = context.obj if isinstance(context.obj, Common) else Common()
    return Common(
        engine or before.engine,
        docker_host or before.docker_host,
        image or before.image,
        config or before.config,
        debug or before.debug,
    )


def seconds(timeout: float | None) -> float | None:
    """A ``--timeout`` as :meth:`Session.execute` takes it."""
    from ..session import DEFAULT_TIMEOUT

    if timeout is None:
        return DEFAULT_TIMEOUT
    return timeout or None
