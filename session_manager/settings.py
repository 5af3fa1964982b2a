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
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .bound_folders import BoundFolder, bound_folders
from .network_options import (
    Network,
    decide_network,
    read_addresses,
    read_allowed_hosts,
    read_extra_hosts,
    read_networks,
    refuse_meaningless,
)
from .settings_sources import Sources, explain, parse_yaml
from .unsafe_options import take_unsafe, warn_of_unsafe

logger = logging.getLogger(__name__)

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([bkmgt])?(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
# Directories of the container, not of this machine.
_SYSTEM_DIRECTORIES = frozenset(
    ("/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/sys")
    + ("/tmp", "/usr", "/var")  # noqa: S108
)
_NAMESPACE = "up to 41 lower-case letters, digits, dots, dashes and underscores, a letter or digit first"


def parse_size(value: object) -> int:
    """Bytes, from a number or from text as Docker takes it: ``"512m"``, ``"1.5g"``; units are powers of 1024.

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError('should be a size: a number of bytes, or text such as "512m" or "2g"')
    return int(float(found[1]) * _UNITS[(found[2] or "b").lower()])


def _size(minimum: str, maximum: str = "1024t") -> tuple[BeforeValidator, AfterValidator]:
    least, most = parse_size(minimum), parse_size(maximum)

    def within(value: int) -> int:
        if value < least:
            raise ValueError(f"should be at least {minimum}")
        if value > most:
            raise ValueError(f"should be at most {maximum}")
        return value

    return BeforeValidator(parse_size), AfterValidator(within)


def _text(pattern: str, what: str) -> AfterValidator:
    def matching(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"should be {what}")
        return value

    return AfterValidator(matching)


class _Section(BaseModel):
    """A part of the settings: frozen, with unknown names refused, and failures that are SettingsErrors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    section: ClassVar[tuple[str, ...]] = ()

    def __init__(self, /, **values: Any) -> None:
        try:
            self.__pydantic_validator__.validate_python(values, self_instance=self)
        except ValidationError as error:
            raise explain(error, type(self), type(self).section, Sources()) from None

    # As pydantic's RootModel does it: a section in a section is validated with it, in one go, so that an
    # error knows the whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: object, info: ValidationInfo) -> object:
        """Pydantic would take true for 1, and a limit of ``yes`` seconds for a second."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("should not be true or false")
        return value


class Limits(_Section):
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
    workspace_bytes: Annotated[int, *_size("1m")] | None = parse_size("4g")
    """A workspace that holds more is named in each result; None for no limit."""
    replay_bytes: Annotated[int, *_size("64k", "1g")] = parse_size("4m")
    """Output that is kept inside the container for a program that was away while it was printed."""
    journal_bytes: Annotated[int, *_size("1m", "64g")] | None = parse_size("64m")
    """What the journal of a session's cells takes in its workspace; the oldest cells go first. None: none is kept."""
    output_bytes: Annotated[int, *_size("64k", "4g")] = parse_size("16m")
    """Output kept of each cell."""
    text_chars: Annotated[int, Field(ge=200, le=10_000_000)] = 20_000
    """Characters of that a language model reads."""
    message_bytes: Annotated[int, *_size("1m", "1g")] = parse_size("128m")
    """The largest single message that is accepted from a kernel."""
    file_bytes: Annotated[int, *_size("1m")] = parse_size("8g")
    """The largest single file that is put into a session or got out of one."""
    files: Annotated[int, Field(ge=1, le=10_000_000)] = 20_000
    """The most files that one listing names, and that a session may hold for another to be put into it."""


class Saving(_Section):
    """Variables are saved in the workspace before an idle session is reaped, and restored in the next of its key.

    ::

        Saving(enabled=False)
    """

    section = ("saving",)

    enabled: bool = True
    """Whether that is done at all. Saving on request works either way."""
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0
    """Seconds that saving, or restoring, may take."""
    max_bytes: Annotated[int, *_size("4k")] = parse_size("512m")
    """What the saved variables of a session may take, in all."""


class Workspaces(_Section):
    """How long files are kept that no running session uses.

    ::

        Workspaces(keep_unused=7 * 86400, total_bytes="50g")
    """

    section = ("workspaces",)

    keep_unused: Annotated[float, Field(gt=0, le=3_153_600_000, allow_inf_nan=False)] | None = 2_592_000.0
    """Seconds after which a workspace that no session uses is removed, with its files; None for never."""
    total_bytes: Annotated[int, *_size("1m")] | None = None
    """Above this total, workspaces that no session uses are removed, the one unused for longest first."""


_MODULE = r"[A-Za-z_]\w{0,63}(\.[A-Za-z_]\w{0,63}){0,7}"


class Pool(_Section):
    """Containers that wait with a booted kernel, so that a new session starts at once.

    ::

        Pool(size=2)
    """

    section = ("pool",)

    size: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many wait; 0 for none."""
    preload: tuple[Annotated[str, _text(_MODULE, "the name of a module")], ...] = (
        "numpy",
        "pandas",
        "matplotlib.pyplot",
    )
    """Modules that are imported ahead of need, where the image has them."""


def _mount_point(value: str) -> str:
    parts = value.split("/")
    if parts[0] or not all(re.fullmatch(r"[\w.-]{1,100}", part, re.ASCII) for part in parts[1:]) or len(value) > 400:
        raise ValueError("should be an absolute path of letters, digits, dots, dashes and underscores")
    if ".." in parts or "." in parts or f"/{parts[1]}" in _SYSTEM_DIRECTORIES:
        raise ValueError("should not lie in a directory of the system; /mnt is the usual place")
    return value


def _environment(value: object) -> object:
    if not isinstance(value, dict):
        return value
    environment: dict[object, object] = {}
    for name, setting in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w{0,127}", name, re.ASCII):
            raise ValueError(f"should not name a variable {name!r:.60}: letters, digits and underscores only")
        if isinstance(setting, bool) or not isinstance(setting, str | int | float):
            raise ValueError(f"should give {name} as text: put it in quotes")
        if "\0" in str(setting):
            raise ValueError(f"should give {name} without a null character")
        environment[name] = str(setting)
    if sum(len(str(name)) + len(str(setting)) for name, setting in environment.items()) > 65_536:
        raise ValueError("should be no larger than 64 KiB in all")
    return environment


class DeviceRequest(_Section):
    """Devices that a driver of the engine's hands to containers, such as GPUs; in docker-py's words."""

    section = ("container", "device_requests")

    driver: Annotated[str, _text(r"[\w.-]{0,64}", "the name of a driver")] = ""
    count: Annotated[int, Field(ge=-1, le=1024)] | None = None
    """-1 for all."""
    device_ids: tuple[Annotated[str, _text(r"[\w.:/-]{1,200}", "the id of a device")], ...] = ()
    capabilities: tuple[tuple[Annotated[str, _text(r"[\w.-]{1,64}", "the name of a capability")], ...], ...] = (
        ("gpu",),
    )


class ContainerOptions(_Section):
    """What each container may use, as an administrator writes it in YAML, with docker-py's names.

    ::

        ContainerOptions.from_yaml("mem_limit: 2g\\nnano_cpus: 2000000000")

    Sizes are bytes, or text such as ``"512m"``. Options that would weaken the sandbox, or that this package
    sets itself, are refused, each with its reason.
    """

    section = ("container",)

    mem_limit: Annotated[int, *_size("64m")] = parse_size("1g")
    """Memory, its tmpfs included; there is no swap on top."""
    nano_cpus: Annotated[int, Field(ge=10_000_000, le=1_024_000_000_000)] = 1_000_000_000
    """Processor time in billionths of a CPU: 1500000000 is one and a half CPUs."""
    pids_limit: Annotated[int, Field(ge=32, le=32_768)] = 256
    """Processes and threads."""
    shm_size: Annotated[int, *_size("1m")] = parse_size("64m")
    """The size of /dev/shm, which multiprocessing uses."""
    tmp_size: Annotated[int, *_size("1m")] = parse_size("256m")
    """The size of /tmp, which is in memory."""
    home_size: Annotated[int, *_size("1m")] = parse_size("64m")
    """The size of the home directory, which is in memory and holds settings and caches."""
    file_size: Annotated[int, *_size("1m")] = parse_size("16g")
    """The size of any one file, holes included."""
    network: Network = "none"
    """``none``; ``allowlist``: what ``allowed_hosts`` names, over HTTP and HTTPS; ``full``: the engine's default bridge
    network, and with it whatever that reaches."""
    network_disabled: bool = True
    """docker-py's word for it: true is ``network: none``; false is ``full``, or ``allowlist`` where hosts are named."""
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(read_allowed_hosts)] = ()
    """Host names such as ``pypi.org``, ``*.example.org`` (all below it), ``example.org:8443``; else port 80 or 443."""
    private_networks: Annotated[tuple[str, ...], BeforeValidator(read_networks)] = ()
    """Networks such as ``10.1.2.0/24`` that allowed hosts may be in: a name that leads to any other private address is
    refused."""
    extra_hosts: Annotated[dict[str, str], BeforeValidator(read_extra_hosts)] = Field(default_factory=dict)
    """Addresses of names that no DNS server knows."""
    dns: Annotated[tuple[str, ...], BeforeValidator(read_addresses)] = ()
    """Addresses of DNS servers, instead of the engine's own."""
    working_dir: Annotated[str, AfterValidator(_mount_point)] = "/mnt"
    """Where the session's files are, on a volume."""
    environment: Annotated[dict[str, str], BeforeValidator(_environment)] = Field(default_factory=dict)
    """Environment variables of the kernel. The code in the session can read them: no secrets."""
    hostname: Annotated[str, _text(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", "a host name")] = "sandbox"
    runtime: Annotated[str, _text(r"[A-Za-z0-9][\w.-]{0,63}", "the name of a runtime")] | None = None
    """An OCI runtime that the engine knows by this name, such as ``runsc`` (gVisor); None for its default."""
    volumes: Annotated[tuple[str, ...], BeforeValidator(bound_folders)] = ()
    """Folders of the engine's host that every session sees, such as ``"/srv/data:/mnt/data:ro"``; none by default."""
    device_requests: tuple[DeviceRequest, ...] = ()
    """GPUs: ``[{driver: nvidia, count: -1}]`` is all of them."""
    allow_unsafe_options: bool = False
    """Lets options through that take the sandbox away, such as ``privileged``."""
    unsafe: dict[str, Any] = Field(default_factory=dict)
    """Those options, from beside this one."""

    @model_validator(mode="before")
    @classmethod
    def _take_unsafe(cls, values: object) -> object:
        return take_unsafe(values)

    @model_validator(mode="after")
    def _warn_of_unsafe(self) -> Self:
        warn_of_unsafe(self.unsafe)
        return self

    @model_validator(mode="after")
    def _check_volumes(self) -> Self:
        for folder in map(BoundFolder.parse, self.volumes):
            _mount_point(folder.target)
            if f"{self.working_dir}/".startswith(f"{folder.target}/"):
                raise ValueError(f"volumes: {folder.target} would hide the session's own files in {self.working_dir}")
            if folder.mode == "rw":
                logger.warning("volumes: code in sessions can change what is in %s on the host.", folder.source)
        return self

    @model_validator(mode="after")
    def _decide_network(self) -> Self:
        """Afterwards both words for it say the same, and equal options have equal hashes."""
        network = decide_network(self.network, self.network_disabled, self.model_fields_set, bool(self.allowed_hosts))
        refuse_meaningless(
            network,
            allowlist={"allowed_hosts": self.allowed_hosts, "private_networks": self.private_networks},
            network_only={"extra_hosts": self.extra_hosts, "dns": self.dns},
        )
        self.__dict__.update(network=network, network_disabled=network == "none")
        if network == "allowlist" and self.runtime is not None:
            raise ValueError(
                f"network: allowlist and runtime: {self.runtime} exclude each other: the way to the proxy leads through"
                " what containers of the default runtime share with each other"
            )
        if network == "full":
            logger.warning(
                "network: full: code in sessions reaches the engine's bridge network, the containers on it, and "
                "through it perhaps this host and the internet."
            )
        return self

    @classmethod
    def from_yaml(cls, text: str) -> ContainerOptions:
        """The options in a YAML mapping. Raises SettingsError, with the line and column."""
        document = parse_yaml(text, "the YAML text")
        sources = Sources()
        sources.add({"container": document.values}, document.places(("container",)))
        return sources.build(cls, ("container",))


def _absolute(path: Path) -> Path:
    expanded = path.expanduser()
    if not expanded.is_absolute():
        raise ValueError("should be an absolute path")
    return expanded


class Settings(_Section):
    """All settings. In code::

        Settings(image="example", limits=Limits(timeout=30))
        Settings(container={"mem_limit": "2g"})

    :meth:`load` reads a YAML file and the environment as well. Every failure is a
    :class:`~session_manager.errors.SettingsError` that names the setting, what is wrong with it, and where it
    is.
    """

    engine: Literal["docker", "process"] = "docker"
    """``process`` is a plain process of this machine, without isolation."""
    docker_host: Annotated[str, _text(r"\S{1,1024}", "an address without spaces")] | None = None
    """The engine's address, such as ``ssh://user@host``; None for the one that ``docker`` uses."""
    image: Annotated[str, _text(r"[A-Za-z0-9][\w./:@-]{0,254}", "a reference to an image")] | None = None
    """None for the default image, ``example`` for the one for data analysis, or any reference."""
    namespace: Annotated[str, _text(r"[a-z0-9][a-z0-9_.-]{0,40}", _NAMESPACE)] = "docker-interpreter"
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
