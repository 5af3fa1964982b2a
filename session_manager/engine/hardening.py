"""What a Docker container may do, whatever runs in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import docker

from ..container_options import ContainerOptions
from .base import RUNTIME_DIRECTORY
from .squid import PORT

HOME = "/home/python"
PACKAGES = ".docker-interpreter/packages"
"""In the workspace: what pip installs. It stays with the files, and is there for the session's next container."""
USER_ID = 1000
USER = f"{USER_ID}:{USER_ID}"
OPEN_FILES = 4096
RUNTIME_SIZE = 1 << 20
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - inside the container
BYTES_A_FILE = 4096
OOM_SCORE = 500
"""Above that of the host's services, which the kernel ends later."""
SHARED = {"kernel.shm_rmid_forced": "1", "kernel.msgmni": "32", "kernel.sem": "250 1000 32 32"}
"""What programs share by System V's means outlives them, and would take from the next Python's memory: so shared
memory ends with the last that has it, and queues and semaphores are few."""
LOG_DRIVER = "json-file"
LOG_OPTIONS = {"max-size": "1m", "max-file": "1"}


def network_environment(options: ContainerOptions) -> dict[str, str]:
    """How programs find the network where there is one, and where pip puts what it installs."""
    if options.network == "none":
        return {}
    variables = {"PIP_TARGET": f"{options.working_dir}/{PACKAGES}"}
    variables |= {"PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if options.network == "allowlist":
        proxy, beside = f"http://127.0.0.1:{PORT}", "localhost,127.0.0.1,::1"
        for name, value in (("HTTP_PROXY", proxy), ("HTTPS_PROXY", proxy), ("NO_PROXY", beside)):
            variables |= {name: value, name.lower(): value}
    return variables


def environment(options: ContainerOptions) -> dict[str, str]:
    """The environment of a container: places to write on a read-only root, and what the admin added. No secrets."""
    return {
        **network_environment(options),
        "HOME": HOME,
        "IPYTHONDIR": f"{HOME}/.ipython",
        "MPLCONFIGDIR": f"{HOME}/.matplotlib",
        "PYTHONDONTWRITEBYTECODE": "1",
        **options.environment,
    }


def name_resolution(options: ContainerOptions) -> dict[str, Any]:
    """How a container that has a network finds addresses; in docker-py's words."""
    return {"extra_hosts": dict(options.extra_hosts), "dns": list(options.dns) or None}


def ulimits(options: ContainerOptions) -> dict[str, int]:
    """The limits of each process, by their names; soft and hard are one. No file has holes of a terabyte."""
    return {"core": 0, "nofile": OPEN_FILES, "fsize": options.file_size}


def sized(size: int) -> str:
    """The options of a memory disk of so many bytes. Its files are counted too: empty ones take memory as well."""
    return f"size={size},nr_inodes={max(1024, size // BYTES_A_FILE)}"


def user_of(options: ContainerOptions) -> str:
    """Who code runs as, ``uid:gid``."""
    return options.unsafe.get("user", USER)


def hardened(options: ContainerOptions, mounts: Sequence[docker.types.Mount]) -> dict[str, Any]:
    """Host configuration, in docker-py's words, of a container that code nobody trusts may run in."""
    user, _, group = user_of(options).partition(":")
    own = f"uid={user},gid={group}"
    ipc_is_shared = "ipc_mode" in options.unsafe
    # the engine's own would count no files; where an administrator shares another's, it is that
    memory = {SHARED_MEMORY: f"rw,nosuid,nodev,noexec,{sized(options.shm_size)},mode=1777"}
    unsafe = {name: value for name, value in options.unsafe.items() if name != "user"}
    return {
        "auto_remove": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "read_only": True,
        "network_mode": options.network_name if options.network == "full" else "none",
        **(name_resolution(options) if options.network == "full" else {}),
        "ipc_mode": "private",
        "sysctls": {} if ipc_is_shared else SHARED,
        "init": False,
        "mem_limit": options.mem_limit,
        # equal to the memory limit: no swap on top of it
        "memswap_limit": options.mem_limit,
        "nano_cpus": options.nano_cpus,
        "pids_limit": options.pids_limit,
        "shm_size": options.shm_size,
        "oom_score_adj": OOM_SCORE,
        "runtime": options.runtime,
        "ulimits": [docker.types.Ulimit(name=name, soft=most, hard=most) for name, most in ulimits(options).items()],
        # what the supervisor says, which is little; a kernel's own output never gets there
        "log_config": docker.types.LogConfig(type=LOG_DRIVER, config=LOG_OPTIONS),
        "tmpfs": {
            **({} if ipc_is_shared else memory),
            "/tmp": f"rw,nosuid,nodev,exec,{sized(options.tmp_size)},mode=1777",  # noqa: S108 - inside the container
            HOME: f"rw,nosuid,nodev,exec,{sized(options.home_size)},mode=0700,{own}",
            RUNTIME_DIRECTORY: f"rw,nosuid,nodev,noexec,{sized(RUNTIME_SIZE)},mode=0700,{own}",
        },
        "mounts": list(mounts),
        "device_requests": [
            docker.types.DeviceRequest(**request.model_dump(mode="json")) for request in options.device_requests
        ],
        # what an administrator has let through in spite of everything
        **unsafe,
    }
