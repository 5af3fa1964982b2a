"""What the engine itself says of a session's container, and what the code inside can reach."""

from __future__ import annotations

from typing import Any

import docker

from session_manager import Session, SessionManager
from tests.conftest import MakeManager


async def test_the_container_is_hardened_as_the_engine_sees_it(session: Session, client: docker.APIClient) -> None:
    found: dict[str, Any] = client.inspect_container(session.container_name)
    host, config = found["HostConfig"], found["Config"]
    assert host["NetworkMode"] == "none" and not host["PortBindings"]
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and host["Privileged"] is False
    assert "no-new-privileges" in host["SecurityOpt"] and not any("unconfined" in one for one in host["SecurityOpt"])
    assert host["ReadonlyRootfs"] is True
    assert set(host["Tmpfs"]) == {"/tmp", "/home/python", "/run/session", "/dev/shm"}
    assert all("size=" in options and "nosuid" in options for options in host["Tmpfs"].values())
    assert host["Memory"] == host["MemorySwap"] == 1 << 30
    assert host["PidsLimit"] == 256 and host["NanoCpus"] == 1_000_000_000
    assert host["IpcMode"] == "private" and host["PidMode"] == "" and host["ShmSize"] == 64 << 20
    assert not host["Binds"] and not host["Devices"] and not host["VolumesFrom"]
    assert [(mount["Type"], mount["Target"]) for mount in host["Mounts"]] == [("volume", "/mnt")]
    assert {limit["Name"] for limit in host["Ulimits"]} == {"core", "nofile", "fsize"}
    assert host["LogConfig"]["Config"] == {"max-size": "1m", "max-file": "1"}
    assert host["AutoRemove"] is True and host["OomScoreAdj"] == 500
    assert config["User"] == "1000:1000"


async def test_the_key_is_in_no_environment_label_or_inspect_output(session: Session, client: docker.APIClient) -> None:
    key = str(session._attachment.container.link.connection_info()["key"])
    assert len(key) == 64
    assert key not in str(client.inspect_container(session.container_name))
    run = await session.execute("import os; print(sorted(os.environ))")
    assert "DOCKER" not in run.text and "KEY" not in run.text


async def test_what_the_code_can_reach(session: Session) -> None:
    run = await session.execute(
        "import os, socket\n"
        "print(os.getuid(), os.getgid(), os.getcwd())\n"
        "print(sorted(os.listdir('/sys/class/net')))\n"
        "for place in ('/', '/opt/venv', '/opt/kernel_image', '/etc'):\n"
        "    try: open(place + '/x', 'w'); print('wrote', place)\n"
        "    except OSError as error: print(error.strerror)\n"
        "for place in ('/mnt', '/tmp', os.environ['HOME']): open(place + '/x', 'w').write('x')\n"
        "try: socket.create_connection(('192.0.2.1', 80), 2); print('connected')\n"
        "except OSError as error: print(error.strerror)\n"
        "status = open('/proc/self/status').read()\n"
        "names = ('CapEff', 'NoNewPrivs', 'Seccomp:')\n"
        "print([line.split()[1] for line in status.splitlines() if line.startswith(names)])"
    )
    lines = run.text.splitlines()
    assert lines[0] == "1000 1000 /mnt"
    assert lines[1] == "['lo']"
    assert all(line in ("Read-only file system", "Permission denied") for line in lines[2:6]), lines
    assert lines[6] == "Network is unreachable"
    assert lines[7] == "['0000000000000000', '1', '2']"


async def test_the_kernel_leads_its_own_group_under_an_init(session: Session) -> None:
    run = await session.execute("import os; print(os.getpid() == os.getpgid(0), os.getppid())")
    assert run.text == "True 1"


async def test_zombies_are_reaped(session: Session) -> None:
    run = await session.execute(
        "import os, subprocess, time\n"
        "subprocess.run(['sh', '-c', 'for i in 1 2 3 4 5; do (sh -c \"sleep 0.1\" &) ; done'])\n"
        "time.sleep(1)\n"
        "states = [open(f'/proc/{pid}/stat').read().split()[2] for pid in os.listdir('/proc') if pid.isdigit()]\n"
        "print(states.count('Z'))"
    )
    assert run.text == "0"


async def test_options_reach_the_engine(make_manager: MakeManager, client: docker.APIClient) -> None:
    manager = await make_manager(
        container={
            "mem_limit": "300m",
            "nano_cpus": 500_000_000,
            "pids_limit": 99,
            "tmp_size": "10m",
            "environment": {"GREETING": "hello"},
            "hostname": "elsewhere",
        }
    )
    session = await manager.throw_away()
    host = client.inspect_container(session.container_name)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (300 << 20, 500_000_000, 99)
    run = await session.execute(
        "import os, shutil, socket\n"
        "print(os.environ['GREETING'], shutil.disk_usage('/tmp').total, socket.gethostname())"
    )
    assert run.text == f"hello {10 << 20} elsewhere"


async def test_one_sessions_files_are_not_anothers(manager: SessionManager) -> None:
    first, second = await manager.session("a"), await manager.session("b")
    await first.execute("open('mine.txt', 'w').write('secret')")
    assert (await second.execute("import os; [name for name in os.listdir() if name[0] != '.']")).text == "[]"
