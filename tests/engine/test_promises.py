"""What is promised of every container, compared with what the engine reports of one that runs."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from session_manager import SandboxError, Session, SettingsError, Stream
from session_manager.container_options import ContainerOptions
from session_manager.engine.audit import ASK, Promise, audit
from tests.conftest import MakeManager

Seen = tuple[dict[str, Any], dict[str, Any]]
Change = Callable[[dict[str, Any], dict[str, Any]], object]


async def seen_by(session: Session, client: docker.APIClient) -> Seen:
    """A session's container, as the engine inspects it, and as a cell in it sees it."""
    run = await session.execute(ASK)
    assert run.status == "ok", run.text
    inside = json.loads("".join(output.text for output in run.outputs if isinstance(output, Stream)))
    return client.inspect_container(session.container_name), inside


def broken(found: list[Promise]) -> list[str]:
    return [promise.name for promise in found if not promise.kept]


async def test_each_promise_is_kept(session: Session, client: docker.APIClient) -> None:
    container, inside = await seen_by(session, client)
    found = list(audit(container, inside, ContainerOptions()))
    assert broken(found) == [], [promise for promise in found if not promise.kept]
    assert len({promise.name for promise in found}) == len(found) >= 21


async def test_each_is_kept_with_options_of_the_administrator_s(
    make_manager: MakeManager, client: docker.APIClient, tmp_path: Path
) -> None:
    options = {
        "mem_limit": "300m", "nano_cpus": 500_000_000, "pids_limit": 99, "shm_size": "8m", "tmp_size": "9m",
        "home_size": "7m", "file_size": "100m", "working_dir": "/work", "environment": {"OWN": "1"},
        "network_disabled": False, "volumes": ["/usr/share/doc:/mnt/doc:ro", f"{tmp_path}:/mnt/both"],
    }  # fmt: skip
    manager = await make_manager(container=options)
    session = await manager.session("options")
    container, inside = await seen_by(session, client)
    assert broken(list(audit(container, inside, manager.settings.container))) == []
    # and is another than the default
    missed = broken(list(audit(container, inside, ContainerOptions())))
    assert {"network", "the host's files", "memory disks", "environment", "memory", "each process"} <= set(missed)


async def test_a_file_has_no_holes_of_a_terabyte(session: Session) -> None:
    run = await session.execute("with open('holes', 'wb') as file: file.truncate(1 << 40)")
    assert run.error is not None and "File too large" in run.error.value
    assert (await session.execute("6 * 7")).text == "42"


def in_host(name: str, value: object) -> Change:
    return lambda container, _: container["HostConfig"].update({name: value})


def in_status(name: str, value: object) -> Change:
    return lambda _, inside: inside["status"].update({name: value})


def said(name: str, value: object) -> Change:
    return lambda _, inside: inside.update({name: value})


def mounted(**mount: object) -> Change:
    return lambda container, _: container["Mounts"].append({"Type": "bind", "RW": True, **mount})


BREAKS: list[tuple[str, Change]] = [
    ("user", lambda container, _: container["Config"].update(User="0:0")),
    ("user", in_host("GroupAdd", ["docker"])),
    ("user", said("ids", [1000, 0, 1000, 1000, 1000, 1000])),
    ("capabilities", in_host("CapDrop", None)),
    ("capabilities", in_host("CapAdd", ["SYS_ADMIN"])),
    ("capabilities", in_status("CapBnd", "00000000a80425fb")),
    ("privileges", in_host("Privileged", True)),
    ("privileges", in_host("SecurityOpt", [])),
    ("privileges", in_status("NoNewPrivs", "0")),
    ("system calls", in_status("Seccomp", "0")),
    ("system calls", in_host("SecurityOpt", ["no-new-privileges", "seccomp=unconfined"])),
    ("network", in_host("NetworkMode", "host")),
    ("network", in_host("PortBindings", {"80/tcp": [{"HostPort": "80"}]})),
    ("network", said("interfaces", ["eth0", "lo"])),
    ("namespaces", in_host("IpcMode", "host")),
    ("namespaces", in_host("PidMode", "host")),
    ("namespaces", in_host("UTSMode", "host")),
    ("namespaces", in_host("UsernsMode", "host")),
    ("root file system", in_host("ReadonlyRootfs", False)),
    ("root file system", said("writable", ["/mnt", "/opt"])),
    ("the host's files", mounted(Destination="/mnt/x", Source="/etc")),
    ("the host's files", lambda container, _: container["Mounts"].clear()),
    ("the host's files", said("sockets", ["/var/run/docker.sock"])),
    ("the host's files", in_host("VolumesFrom", ["another"])),
    ("the host's files", in_host("Devices", [{"PathOnHost": "/dev/sda"}])),
    ("devices", in_host("DeviceRequests", [{"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]]}])),
    ("memory disks", in_host("Tmpfs", {})),
    ("memory disks", said("disks", {"/dev/shm": [67108864, 0]})),
    ("memory disks", said("disks", {"/tmp": [1 << 40, 65536]})),
    ("memory disks", in_host("ShmSize", 1 << 40)),
    ("environment", lambda container, _: container["Config"]["Env"].append("AWS_SECRET_ACCESS_KEY=x")),
    (
        "secrets",
        lambda container, inside: container["Config"]["Labels"].update({"docker-interpreter.x": inside["key"]}),
    ),
    ("secrets", said("key", "")),
    ("log", in_host("LogConfig", {"Type": "json-file", "Config": {}})),
    ("memory", in_host("Memory", 0)),
    ("memory", in_host("MemorySwap", -1)),
    ("memory", in_host("OomKillDisable", True)),
    ("memory", said("cgroup", {"memory": -1, "processes": 256})),
    ("processes", in_host("PidsLimit", None)),
    ("processes", said("cgroup", {"memory": 1 << 30, "processes": -1})),
    ("processor", in_host("NanoCpus", 0)),
    ("each process", in_host("Ulimits", None)),
    ("each process", said("limits", {"core": 0, "nofile": 1 << 20, "fsize": 17179869184})),
    ("memory runs out", in_host("OomScoreAdj", 0)),
    ("memory runs out", said("oom_score_adj", 0)),
    ("first process", said("first", ["sleep", "infinity"])),
    ("afterwards", in_host("AutoRemove", False)),
    ("afterwards", in_host("RestartPolicy", {"Name": "always"})),
    ("runtime", in_host("Runtime", "")),
]


async def test_each_that_is_broken_is_said(session: Session, client: docker.APIClient) -> None:
    seen = await seen_by(session, client)
    names = [promise.name for promise in audit(*seen, ContainerOptions())]
    assert {name for name, _ in BREAKS} == set(names)
    for name, change in BREAKS:
        container, inside = copy.deepcopy(seen)
        change(container, inside)
        assert broken(list(audit(container, inside, ContainerOptions()))) == [name], name


async def test_what_an_image_sets_is_not_the_host_s(session: Session, client: docker.APIClient) -> None:
    container, inside = await seen_by(session, client)
    container["Config"]["Env"].append("EDITION=full")
    assert broken(list(audit(container, inside, ContainerOptions(), ["EDITION=full"]))) == []
    assert broken(list(audit(container, inside, ContainerOptions(), ["EDITION=other"]))) == ["environment"]


async def test_devices_that_were_asked_for_are_as_promised(session: Session, client: docker.APIClient) -> None:
    container, inside = await seen_by(session, client)
    options = ContainerOptions(device_requests=[{"driver": "nvidia", "count": -1}])
    assert broken(list(audit(container, inside, options))) == ["devices"]
    asked = {"Driver": "nvidia", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    container["HostConfig"]["DeviceRequests"] = [asked]
    assert broken(list(audit(container, inside, options))) == []


async def test_what_an_administrator_lets_through_in_spite_of_all_is_said(
    make_manager: MakeManager, client: docker.APIClient
) -> None:
    manager = await make_manager(container={"allow_unsafe_options": True, "cap_add": ["NET_ADMIN"], "group_add": ["0"]})
    session = await manager.session("unsafe")
    assert (await session.execute("import os; os.getgroups()")).text == "[0, 1000]"
    seen = await seen_by(session, client)
    assert set(broken(list(audit(*seen, manager.settings.container)))) == {"user", "capabilities"}


async def test_shared_memory_is_the_host_s_where_an_administrator_wants_that(
    make_manager: MakeManager, client: docker.APIClient
) -> None:
    manager = await make_manager(container={"allow_unsafe_options": True, "ipc_mode": "host"})
    session = await manager.session("ipc")
    seen = await seen_by(session, client)
    assert "/dev/shm" not in seen[0]["HostConfig"]["Tmpfs"]
    assert set(broken(list(audit(*seen, manager.settings.container)))) == {"namespaces", "memory disks"}


async def test_root_s_sessions_work_where_an_administrator_wants_them(make_manager: MakeManager) -> None:
    manager = await make_manager(container={"allow_unsafe_options": True, "cap_add": ["DAC_OVERRIDE"], "user": 0})
    session = await manager.session("root")
    assert (await session.execute("import os; open('x', 'w').write('1'); os.getuid()")).text.startswith("0")
    assert await session.files.get("x") == b"1"
    await session.restart()
    assert (await session.execute("6 * 7")).text == "42"


async def test_a_runtime_that_the_engine_does_not_know_is_a_sentence(make_manager: MakeManager) -> None:
    manager = await make_manager(container={"runtime": "no-such-runtime"})
    with pytest.raises(SettingsError, match="does not run containers under 'no-such-runtime'"):
        await manager.session("x")


async def test_devices_that_the_engine_does_not_have_are_a_sentence(make_manager: MakeManager) -> None:
    manager = await make_manager(container={"device_requests": [{"driver": "no-such-driver", "count": -1}]})
    with pytest.raises(SandboxError, match="no-such-driver"):
        await manager.session("x")


async def test_a_runtime_that_was_not_asked_for_is_said(session: Session, client: docker.APIClient) -> None:
    found = list(audit(*await seen_by(session, client), ContainerOptions(runtime="runsc")))
    assert broken(found) == ["runtime"]


@pytest.mark.parametrize("words", ["security_opt", "privileged", "cap_add", "devices", "pid_mode", "user"])
def test_no_option_can_break_one(words: str) -> None:
    with pytest.raises(Exception, match=words):
        ContainerOptions.from_yaml(f"{words}: x")
