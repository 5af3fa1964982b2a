"""What is promised of a session's container, compared with what the engine and the container say of one that runs.

The engine's word counts for what it was told, and a cell's for what came of that: an engine may run without seccomp.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..bound_folders import BoundFolder
from ..container_options import ContainerOptions
from .base import RUNTIME_DIRECTORY
from .hardening import (
    HOME,
    LOG_DRIVER,
    LOG_OPTIONS,
    OOM_SCORE,
    RUNTIME_SIZE,
    SHARED_MEMORY,
    USER,
    USER_ID,
    environment,
    sized,
    ulimits,
)

ASK: Final = r"""
import json, os, resource
from pathlib import Path

pairs = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
status = {name: value.strip() for name, _, value in pairs}
places = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
places |= {entry.path for entry in os.scandir("/") if entry.is_dir(follow_symlinks=False)}
sockets = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd", "/run/podman")

def number(path):
    try:
        word = Path("/sys/fs/cgroup", path).read_text().split()[0]
    except (OSError, IndexError):
        return None
    return int(word) if word.lstrip("-").isdigit() else -1

CGROUP = {
    "memory": ("memory.max", "memory/memory.limit_in_bytes"),
    "processes": ("pids.max", "pids/pids.max"),
}
DISKS = ("/tmp", "/dev/shm", os.path.expanduser("~"))
print(json.dumps({
    "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
    "status": {name: status.get(name) for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")},
    "writable": sorted(place for place in places if os.path.isdir(place) and os.access(place, os.W_OK)),
    "interfaces": sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else ["lo"],
    "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name.upper()))[1]
               for name in ("core", "nofile", "fsize")},
    "first": Path("/proc/1/cmdline").read_bytes().decode().split("\0")[:3],
    "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
    "sockets": [path for path in sockets if os.path.exists(path)],
    "cgroup": {name: next((found for found in map(number, places) if found is not None), None)
               for name, places in CGROUP.items()},
    "disks": {place: [stat.f_blocks * stat.f_frsize, stat.f_files] for place in DISKS for stat in [os.statvfs(place)]},
    "key": get_ipython().kernel.session.key.decode(),
}))
"""
"""A cell that says what there is to see from inside, as JSON."""
MOST_SHOWN: Final = 160
PAGE: Final = 65_536
"""The largest of the machines that containers run on: what is counted in pages is rounded to them."""
REQUEST_WORDS: Final[Sequence[tuple[str, str, object]]] = (
    ("driver", "Driver", ""),
    ("count", "Count", 0),
    ("device_ids", "DeviceIDs", []),
    ("capabilities", "Capabilities", []),
)
"""The option's words, the engine's, and what both mean where nothing is said."""
IMAGE_VARIABLES: Final = frozenset(("PATH", "LANG", "GPG_KEY"))
"""Which images set themselves, beside those that begin with PYTHON."""


@dataclass(frozen=True, slots=True)
class Promise:
    """One thing that holds for each container, and what was found of it."""

    name: str
    promised: str
    found: str
    kept: bool


def audit(
    container: Mapping[str, Any], inside: Mapping[str, Any], options: ContainerOptions, baked: Collection[str] = ()
) -> Iterator[Promise]:
    """Every promise, and whether it is kept.

    ``container``: as the engine inspects it; ``inside``: what the cell :data:`ASK` said; ``options``: what was wanted;
    ``baked``: the environment of its image, ``NAME=value``.
    """
    host, config, status = container["HostConfig"], container["Config"], inside["status"]
    security = host["SecurityOpt"] or []

    def promise(name: str, promised: str, found: object, kept: bool) -> Promise:
        text = found if isinstance(found, str) else json.dumps(found)
        return Promise(name, promised, text[:MOST_SHOWN], kept)

    yield promise(
        "user",
        f"{USER}, without other groups",
        f"{config['User']}, inside {inside['ids']}",
        config["User"] == USER and set(inside["ids"]) == {USER_ID} and not host["GroupAdd"],
    )
    yield promise(
        "capabilities",
        "none, and none to be had",
        {"dropped": host["CapDrop"], "added": host["CapAdd"], "bounding set": status["CapBnd"]},
        host["CapDrop"] == ["ALL"]
        and not host["CapAdd"]
        and all(int(status[name] or "1", 16) == 0 for name in ("CapEff", "CapPrm", "CapBnd")),
    )
    yield promise(
        "privileges",
        "not privileged, and none gained by setuid programs",
        {"privileged": host["Privileged"], "options": security},
        not host["Privileged"] and "no-new-privileges" in security and status["NoNewPrivs"] == "1",
    )
    yield promise(
        "system calls",
        "filtered by the engine's seccomp profile",
        "filtered" if status["Seccomp"] == "2" else "not filtered: the engine runs without its profile",
        status["Seccomp"] == "2" and not any("unconfined" in option for option in security),
    )
    wanted = options.network_name if options.network == "full" else "none"
    yield promise(
        "network",
        wanted,
        {"mode": host["NetworkMode"], "interfaces": inside["interfaces"], "ports": host["PortBindings"]},
        host["NetworkMode"] == wanted
        and not host["PortBindings"]
        and (wanted != "none" or inside["interfaces"] == ["lo"]),
    )
    shared = {name: host[name] for name in ("IpcMode", "PidMode", "UTSMode", "UsernsMode")}
    yield promise(
        "namespaces",
        "its own",
        shared,
        shared["IpcMode"] == "private" and not any(shared[name] for name in ("PidMode", "UTSMode", "UsernsMode")),
    )
    yield from _files(container, inside, options, baked, promise)
    yield from _limits(container, inside, options, promise)


def _files(
    container: Mapping[str, Any],
    inside: Mapping[str, Any],
    options: ContainerOptions,
    baked: Collection[str],
    promise: Any,
) -> Iterator[Promise]:
    host = container["HostConfig"]
    bound = {(folder.target, folder.source): folder for folder in map(BoundFolder.parse, options.volumes)}
    places = {options.working_dir, "/tmp", HOME, RUNTIME_DIRECTORY, "/dev/shm", "/dev/mqueue"}  # noqa: S108 - inside
    places |= {folder.target for folder in bound.values() if folder.mode == "rw"}
    yield promise(
        "root file system",
        f"read-only but for {', '.join(sorted(places))}",
        {"read-only": host["ReadonlyRootfs"], "writable": inside["writable"]},
        host["ReadonlyRootfs"] and set(inside["writable"]) <= places,
    )
    mounts = container["Mounts"]
    binds = [(mount["Destination"], mount["Source"]) for mount in mounts if mount["Type"] == "bind"]
    volumes = [mount["Destination"] for mount in mounts if mount["Type"] == "volume"]
    yield promise(
        "the host's files",
        "none" if not bound else "those that the administrator binds",
        {"bound": [source for _, source in binds], "volumes": volumes, "engine's socket": inside["sockets"]},
        set(binds) <= bound.keys()
        and all(mount["RW"] <= (bound[mount["Destination"], mount["Source"]].mode == "rw")
                for mount in mounts if mount["Type"] == "bind" and (mount["Destination"], mount["Source"]) in bound)
        and volumes == [options.working_dir]
        and not inside["sockets"]
        and not (host["VolumesFrom"] or host["Devices"]),
    )  # fmt: skip
    wanted = [request.model_dump(mode="json") for request in options.device_requests]
    requests = [
        {name: one[word] or default for name, word, default in REQUEST_WORDS} for one in host["DeviceRequests"] or ()
    ]
    yield promise(
        "devices",
        "none" if not wanted else "those that the administrator asked for",
        requests,
        requests == [{name: one[name] or default for name, _, default in REQUEST_WORDS} for one in wanted],
    )
    disks = {"/tmp": options.tmp_size, HOME: options.home_size, RUNTIME_DIRECTORY: RUNTIME_SIZE}  # noqa: S108 - inside
    disks[SHARED_MEMORY] = options.shm_size
    sizes = {place: inside["disks"][place] for place in disks.keys() & inside["disks"].keys()}
    told = {place: set(mount.split(",")) for place, mount in (host["Tmpfs"] or {}).items()}
    yield promise(
        "memory disks",
        "sized, without setuid programs and devices",
        {"told": host["Tmpfs"], "bytes and files": sizes},
        told.keys() == disks.keys()
        and all({"nosuid", "nodev", *sized(size).split(",")} <= told[place] for place, size in disks.items())
        and all(0 < size <= disks[place] + PAGE and files > 0 for place, (size, files) in sizes.items())
        and host["ShmSize"] == options.shm_size,
    )
    names = [variable.partition("=")[0] for variable in container["Config"]["Env"] or () if variable not in baked]
    strange = [name for name in names if name not in environment(options) and name not in IMAGE_VARIABLES]
    strange = [name for name in strange if not name.startswith("PYTHON")]
    yield promise(
        "environment",
        "nothing of the host's",
        names if not strange else {"not ours": strange},
        not strange,
    )
    labels = sorted(container["Config"]["Labels"] or ())
    told_key = inside["key"] in json.dumps(container)
    yield promise(
        "secrets",
        "none in its environment, labels or inspection",
        "the kernel's key" if told_key else {"labels": labels},
        not told_key and len(inside["key"]) >= 32,
    )
    log = host["LogConfig"]
    yield promise(
        "log",
        "kept small by the engine",
        log,
        log["Type"] == LOG_DRIVER and dict(log["Config"]) == LOG_OPTIONS,
    )


def _limits(
    container: Mapping[str, Any], inside: Mapping[str, Any], options: ContainerOptions, promise: Any
) -> Iterator[Promise]:
    host = container["HostConfig"]
    counted = inside["cgroup"]
    yield promise(
        "memory",
        f"{options.mem_limit} bytes, and no swap",
        {"memory": host["Memory"], "with swap": host["MemorySwap"], "inside": counted["memory"]},
        host["Memory"] == host["MemorySwap"] == options.mem_limit
        and not host["OomKillDisable"]
        and (counted["memory"] is None or -PAGE < counted["memory"] - options.mem_limit <= 0),
    )
    yield promise(
        "processes",
        f"at most {options.pids_limit}",
        {"told": host["PidsLimit"], "inside": counted["processes"]},
        host["PidsLimit"] == options.pids_limit and counted["processes"] in (None, options.pids_limit),
    )
    yield promise(
        "processor",
        f"at most {options.nano_cpus / 1e9:g} CPUs",
        host["NanoCpus"] / 1e9,
        host["NanoCpus"] == options.nano_cpus,
    )
    told = {limit["Name"]: limit["Hard"] for limit in host["Ulimits"] or ()}
    yield promise(
        "each process",
        f"limits {json.dumps(ulimits(options))}",
        {"told": told, "inside": inside["limits"]},
        told == ulimits(options) and inside["limits"] == ulimits(options),
    )
    yield promise(
        "memory runs out",
        "it goes before the host's services",
        {"told": host["OomScoreAdj"], "inside": inside["oom_score_adj"]},
        host["OomScoreAdj"] == OOM_SCORE and inside["oom_score_adj"] >= OOM_SCORE,
    )
    yield promise(
        "first process",
        "the session's supervisor, which ends what is left over",
        inside["first"],
        any(word.endswith("/supervisor.py") for word in inside["first"]),
    )
    yield promise(
        "afterwards",
        "removed, and never started again",
        {"removed": host["AutoRemove"], "restarted": host["RestartPolicy"]["Name"]},
        host["AutoRemove"] and host["RestartPolicy"]["Name"] in ("", "no"),
    )
    runtime = options.runtime
    yield promise(
        "runtime",
        runtime or "the engine's default",
        host["Runtime"],
        host["Runtime"] == runtime if runtime else bool(host["Runtime"]),
    )
