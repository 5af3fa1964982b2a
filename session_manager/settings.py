"""What can be set, where it is read from, and how a wrong setting becomes a clear error.

::

    Settings                   the engine, the image, the namespace
    ├── container              ContainerOptions: what each container may use
    ├── limits                 Limits: how long things may take, how many there may be, how much is kept
    ├── saving                 Saving: variables that outlive their session's container
    ├── workspaces             Workspaces: how long files are kept that no session uses
    └── pool                   Pool: containers started ahead of need
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
)

from .container_options import ContainerOptions
from .settings_section import Section, parse_size, size, text
from .settings_sources import Sources

_NAMESPACE = "up to 41 lower-case letters, digits, dots, dashes and underscores, a letter or digit first"


class Limits(Section):
    """How long things may take (seconds) and how much of them is kept (bytes, characters).

    ::

        Limits(timeout=30, output_bytes="4m")
    """

    section = ("limits",)

    timeout: Annotated[float, Field(gt=0, le=604_800, allow_inf_nan=False)] | None = 120.0
    """How long a cell may run; None for no limit."""
    interrupt_grace: Annotated[float, Field(ge=0.05, le=300, allow_inf_nan=False)] = 2.0
    """How long each step takes from an interrupt to a kill."""
    start_timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 60.0
    """How long a session may take to start."""
    idle_timeout: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] = 3600.0
    """A session in which no cell has run for so long is reaped: its container goes, its files stay."""
    idle_margin: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    """So much later a container whose managers are all gone ends by itself."""
    orphan_grace: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] = 120.0
    """How long a throw-away session outlives the program that made it, which may only have lost its connection."""
    longest_life: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None = None
    """A container that is older than this is reaped as soon as no cell runs in it; None for no limit."""
    longest_cell: Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)] | None = 86_400.0
    """No cell runs longer, whatever its caller allows, and whether or not its caller still lives; None for no limit."""
    sessions: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """The most sessions that may run in the namespace; None for no limit."""
    sessions_per_owner: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """The most sessions of one owner that may run; None for no limit."""
    when_full: Literal["reap", "refuse"] = "reap"
    """Over the most sessions: the longest-idle one is reaped, or the new one is refused."""
    workspace_bytes: Annotated[int, *size("1m")] | None = parse_size("4g")
    """A workspace that holds more is named in each result; None for no limit."""
    replay_bytes: Annotated[int, *size("64k", "1g")] = parse_size("4m")
    """Output that is kept inside the container for a program that was away while it was printed."""
    journal_bytes: Annotated[int, *size("1m", "64g")] | None = parse_size("64m")
    """What the journal of a session's cells takes in its workspace; the oldest cells go first. None: none is kept."""
    output_bytes: Annotated[int, *size("64k", "4g")] = parse_size("16m")
    """Output kept of each cell."""
    text_chars: Annotated[int, Field(ge=200, le=10_000_000)] = 20_000
    """Characters of that a language model reads."""
    message_bytes: Annotated[int, *size("1m", "1g")] = parse_size("128m")
    """The largest single message that is accepted from a kernel."""
    file_bytes: Annotated[int, *size("1m")] = parse_size("8g")
    """The largest single file that is put into a session or got out of one."""
    files: Annotated[int, Field(ge=1, le=10_000_000)] = 20_000
    """The most files that one listing names, and that a session may hold for another to be put into it."""


class Saving(Section):
    """Variables are saved in the workspace before an idle session is reaped, and restored in the next of its key.

    ::

        Saving(enabled=False)
    """

    section = ("saving",)

    enabled: bool = True
    """Whether that is done at all. Saving on request works either way."""
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    """Seconds that saving, or restoring, may take."""
    max_bytes: Annotated[int, *size("4k")] = parse_size("512m")
    """What the saved variables of a session may take, in all."""


class Workspaces(Section):
    """How long files are kept that no running session uses.

    ::

        Workspaces(keep_unused=7 * 86400, total_bytes="50g")
    """

    section = ("workspaces",)

    keep_unused: Annotated[float, Field(gt=0, le=3_153_600_000, allow_inf_nan=False)] | None = 2_592_000.0
    """Seconds after which a workspace that no session uses is removed, with its files; None for never."""
    total_bytes: Annotated[int, *size("1m")] | None = None
    """Above this total, workspaces that no session uses are removed, the one unused for longest first."""


_MODULE = r"[A-Za-z_]\w{0,63}(\.[A-Za-z_]\w{0,63}){0,7}"


class Pool(Section):
    """Containers that wait with a booted kernel, so that a new session starts at once.

    ::

        Pool(size=2)
    """

    section = ("pool",)

    size: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many wait; 0 for none."""
    preload: tuple[Annotated[str, text(_MODULE, "the name of a module")], ...] = (
        "numpy",
        "pandas",
        "matplotlib.pyplot",
    )
    """Modules that are imported ahead of need, where the image has them."""


def _absolute(path: Path) -> Path:
    expanded = path.expanduser()
    if not expanded.is_absolute():
        raise ValueError("should be an absolute path")
    return expanded


class Settings(Section):
    """All settings. In code::

        Settings(image="example", limits=Limits(timeout=30))
        Settings(container={"mem_limit": "2g"})

    :meth:`load` reads a YAML file and the environment as well. Every failure is a
    :class:`~session_manager.errors.SettingsError` that names the setting, what is wrong with it, and where it
    is.
    """

    engine: Literal["docker", "process"] = "docker"
    """``process`` is a plain process of this machine, without isolation."""
    docker_host: Annotated[str, text(r"\S{1,1024}", "an address without spaces")] | None = None
    """The engine's address, such as ``ssh://user@host``; None for the one that ``docker`` uses."""
    image: Annotated[str, text(r"[A-Za-z0-9][\w./:@-]{0,254}", "a reference to an image")] | None = None
    """None for the default image, ``example`` for the one for data analysis, or any reference."""
    namespace: Annotated[str, text(r"[a-z0-9][a-z0-9_.-]{0,40}", _NAMESPACE)] = "docker-interpreter"
    """What names of containers and volumes begin with; keeps installations on one engine apart."""
    container: ContainerOptions = Field(default_factory=ContainerOptions)
    limits: Limits = Field(default_factory=Limits)
    saving: Saving = Field(default_factory=Saving)
    workspaces: Workspaces = Field(default_factory=Workspaces)
    pool: Pool = Field(default_factory=Pool)
    state_dir: Annotated[Path, AfterValidator(_absolute)] | None = None
    """Where the process engine keeps its sessions; None for the user's state directory."""

    def state_directory(self) -> Path:
        """``state_dir``, or its default: ``docker-interpreter`` in XDG_STATE_HOME or ~/.local/state."""
        if self.state_dir is not None:
            return self.state_dir
        xdg = os.environ.get("XDG_STATE_HOME", "")
        # The XDG base directory specification has relative paths ignored.
        base = Path(xdg) if xdg.startswith("/") else Path.home() / ".local" / "state"
        return base / "docker-interpreter"

    @classmethod
    def load(cls, path: Path | None = None, env: Mapping[str, str] | None = None, **overrides: object) -> Settings:
        """Settings from all sources, later ones winning: defaults, a file, the environment, ``overrides``.

        The file is ``path``, or the one that ``DOCKER_INTERPRETER_CONFIG`` names, or else the first that
        exists of ``./docker-interpreter.yaml`` and ``~/.config/docker-interpreter/config.yaml``. Variables
        are named as in ``DOCKER_INTERPRETER_IMAGE`` and ``DOCKER_INTERPRETER_LIMITS__TIMEOUT``; empty ones
        count as not set, ``null`` is None, and one in braces is read as YAML. Mappings among ``overrides``
        are merged into what is there; :class:`Limits` and :class:`ContainerOptions` objects replace it.
        ``env`` is the process's if not given.

        :raises SettingsError: a file that was named is missing or no YAML; a setting is unknown or wrong.
        """
        sources = Sources()
        sources.add_file(path, os.environ if env is None else env)
        sources.add_environment(os.environ if env is None else env)
        sources.add(overrides, {(): "in code"})
        return sources.build(cls, ())


def settings_hash(settings: Settings) -> str:
    """12 hexadecimal digits that change with whatever a container is made from."""
    limits = {"idle_timeout", "idle_margin", "longest_life", "longest_cell", "replay_bytes", "journal_bytes"}
    relevant = settings.model_dump(
        mode="json",
        include={"image": True, "container": True, "limits": limits, "saving": True, "pool": {"preload"}},
    )
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]
