"""What each container may use, as an administrator writes it: the section ``container`` of the settings."""

from __future__ import annotations

import logging
import re
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

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
from .settings_section import Section, parse_size, size, text
from .settings_sources import Sources, parse_yaml
from .unsafe_options import UnsafeOptions, check_unsafe, take_unsafe, warn_of_unsafe

logger = logging.getLogger(__name__)

# Directories of the container, not of this machine.
_SYSTEM_DIRECTORIES = frozenset(
    ("/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/sys")
    + ("/tmp", "/usr", "/var")  # noqa: S108
)


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


class DeviceRequest(Section):
    """Devices that a driver of the engine's hands to containers, such as GPUs; in docker-py's words."""

    section = ("container", "device_requests")

    driver: Annotated[str, text(r"[\w.-]{0,64}", "the name of a driver")] = ""
    count: Annotated[int, Field(ge=-1, le=1024)] | None = None
    """-1 for all."""
    device_ids: tuple[Annotated[str, text(r"[\w.:/-]{1,200}", "the id of a device")], ...] = ()
    capabilities: tuple[tuple[Annotated[str, text(r"[\w.-]{1,64}", "the name of a capability")], ...], ...] = (
        ("gpu",),
    )


class ContainerOptions(Section):
    """What each container may use, as an administrator writes it in YAML, with docker-py's names.

    ::

        ContainerOptions.from_yaml("mem_limit: 2g\\nnano_cpus: 2000000000")

    Sizes are bytes, or text such as ``"512m"``. Options that would weaken the sandbox, or that this package
    sets itself, are refused, each with its reason.
    """

    section = ("container",)

    mem_limit: Annotated[int, *size("64m")] = parse_size("1g")
    """Memory, its tmpfs included; there is no swap on top."""
    nano_cpus: Annotated[int, Field(ge=10_000_000, le=1_024_000_000_000)] = 1_000_000_000
    """Processor time in billionths of a CPU: 1500000000 is one and a half CPUs."""
    pids_limit: Annotated[int, Field(ge=32, le=32_768)] = 256
    """Processes and threads."""
    shm_size: Annotated[int, *size("1m")] = parse_size("64m")
    """The size of /dev/shm, which multiprocessing uses."""
    tmp_size: Annotated[int, *size("1m")] = parse_size("256m")
    """The size of /tmp, which is in memory."""
    home_size: Annotated[int, *size("1m")] = parse_size("64m")
    """The size of the home directory, which is in memory and holds settings and caches."""
    file_size: Annotated[int, *size("1m")] = parse_size("16g")
    """The size of any one file, holes included."""
    network: Network = "none"
    """``none``; ``allowlist``: what ``allowed_hosts`` names, over HTTP and HTTPS; ``full``: the engine's network that
    ``network_name`` names, and with it whatever that reaches."""
    network_name: Annotated[str, text(r"(?!(host|none|default)$)[A-Za-z0-9][\w.-]{0,127}", "a network's name")] = (
        "bridge"
    )
    """A network of the engine's, for ``network: full``: its default bridge, or one that was made for sessions."""
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
    hostname: Annotated[str, text(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", "a host name")] = "sandbox"
    runtime: Annotated[str, text(r"[A-Za-z0-9][\w.-]{0,63}", "the name of a runtime")] | None = None
    """An OCI runtime that the engine knows by this name, such as ``runsc`` (gVisor); None for its default."""
    volumes: Annotated[tuple[str, ...], BeforeValidator(bound_folders)] = ()
    """Folders of the engine's host that every session sees, such as ``"/srv/data:/mnt/data:ro"``; none by default."""
    device_requests: tuple[DeviceRequest, ...] = ()
    """GPUs: ``[{driver: nvidia, count: -1}]`` is all of them."""
    allow_unsafe_options: bool = False
    """Lets options through that take the sandbox away, such as ``privileged``."""
    unsafe: UnsafeOptions = Field(default_factory=UnsafeOptions)
    """Those options, from beside this one."""

    @model_validator(mode="before")
    @classmethod
    def _take_unsafe(cls, values: object) -> object:
        return take_unsafe(values)

    @model_validator(mode="after")
    def _check_unsafe(self) -> Self:
        check_unsafe(self.unsafe)
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
        if network != "full" and self.network_name != "bridge":
            raise ValueError(f"network_name has a meaning with network: full alone, and the network is {network}")
        self.__dict__.update(network=network, network_disabled=network == "none")
        if network == "allowlist" and self.runtime is not None:
            raise ValueError(
                f"network: allowlist and runtime: {self.runtime} exclude each other: the way to the proxy leads through"
                " what containers of the default runtime share with each other"
            )
        if network == "full":
            logger.warning(
                "network: full: code in sessions reaches the engine's %s network, the containers on it, and "
                "through it perhaps this host and the internet.",
                self.network_name,
            )
        return self

    @classmethod
    def from_yaml(cls, text: str) -> ContainerOptions:
        """The options in a YAML mapping. Raises SettingsError, with the line and column."""
        document = parse_yaml(text, "the YAML text")
        sources = Sources()
        sources.add({"container": document.values}, document.places(("container",)))
        return sources.build(cls, ("container",))
