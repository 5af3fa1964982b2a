"""What sessions reach of the network, with servers of the tests' own, and what they don't."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from session_manager import EngineError, Session, SessionManager
from session_manager.engine import docker_proxy
from session_manager.engine.base import LABEL_SESSION
from session_manager.engine.docker_host import connect
from session_manager.images import ImageKind, ensure_image
from session_manager.reaper import Reaper
from session_manager.registry import LABEL_NAMESPACE, labels_beside
from tests.conftest import MakeManager, MakeSettings, run_python

# on a machine without the proxy's image, the first test waits for it
pytestmark = pytest.mark.timeout(600)

FETCH = """
import http.client, json, os, socket, urllib.error, urllib.request
def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer: return answer.read().decode()
    except urllib.error.HTTPError as error: return error.code
    except urllib.error.URLError as error: return str(error.reason)
def raw(line):
    with socket.create_connection(("127.0.0.1", 3128), 20) as connection:
        connection.sendall(line.encode() + b"\\r\\nHost: listed.test\\r\\nConnection: close\\r\\n\\r\\n")
        return int(connection.makefile().readline().split()[1])
def tunnel(host, port):
    connection = http.client.HTTPConnection("127.0.0.1", 3128, timeout=20)
    connection.set_tunnel(host, port)
    try:
        connection.request("GET", "/tunnelled")
        return connection.getresponse().read().decode()
    except OSError as error: return str(error)
    finally: connection.close()
"""


DIRECT = """
places = [("tcp", "{address}", 80), ("udp", "{address}", 53), ("tcp", "169.254.169.254", 80), ("tcp", "{gateway}", 22)]
places += [(kind, ip, {port}) for kind in ("tcp", "udp") for ip in ["{gateway}", *{host_addresses}]]
places += [(kind, "127.0.0.11", 53) for kind in ("tcp", "udp")]
places += [("udp", line.split()[1], 53) for line in open("/etc/resolv.conf") if line.startswith("nameserver")]
query = b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + bytes([len("{secret}")]) + b"{secret}\\4test\\0\\0\\1\\0\\1"
answer = []
for kind, ip, port in places:
    for tricks in (False, True):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as one:
            one.settimeout(1)
            try:
                if tricks:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
                    for name in sorted(os.listdir("/sys/class/net"), reverse=True):
                        if name != "lo": one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
                one.connect((ip, port))
                one.sendall(query)
                answer.append([kind, ip, port, tricks, one.recv(100).hex()])
            except OSError as error: pass
for name in ("listed.test", "{secret}.test"):
    try: answer.append(socket.gethostbyname(name))
    except OSError: pass
answer.append(sorted(os.listdir("/sys/class/net")))
answer.append(open("/proc/net/route").read().count("\\n"))
try: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); answer.append("raw")
except OSError: pass
try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW); answer.append("packets")
except OSError: pass
"""


class HostListener:
    """A server of the engine's host, on all its addresses, TCP and UDP; what arrived there."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.tcp = socket.create_server(("0.0.0.0", 0))  # noqa: S104
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("0.0.0.0", self.port))  # noqa: S104
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._accept, self._receive)]
        for thread in self._threads:
            thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, address = self.tcp.accept()
            except OSError:
                return
            self.seen.append(address)
            connection.close()

    def _receive(self) -> None:
        while content := self.udp.recv(1000):
            self.seen.append(content)

    def close(self) -> None:
        self.tcp.shutdown(socket.SHUT_RDWR)
        self.tcp.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join()
        self.udp.close()


@dataclass(frozen=True)
class World:
    """What is outside: a container with servers, the engine's host, and how a session may reach the former."""

    address: str
    gateway: str
    host: HostListener
    log: Callable[[], list[str]]

    def options(self, *hosts: str) -> dict[str, Any]:
        """Options of containers that may reach these hosts."""
        return {
            "network": "allowlist",
            "allowed_hosts": hosts or ("listed.test",),
            "private_networks": [f"{self.address}/32"],
            "dns": [self.address],
        }

    def direct(self, secret: str) -> str:
        """Code that tries all there is, past every proxy, to send the secret."""
        places = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), 0, socket.AF_INET)}
        return DIRECT.format(
            address=self.address,
            gateway=self.gateway,
            port=self.host.port,
            host_addresses=sorted(map(str, places)),
            secret=secret,
        )

    def asked(self) -> set[str]:
        """The names that DNS was asked for."""
        return {line.split()[1] for line in self.log() if line.startswith("DNS")}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The world outside, for all tests of this file."""
    api = connect()
    host = HostListener()
    image = ensure_image(api, ImageKind.DEFAULT, progress=print)
    script = Path(__file__).with_name("outside_world.py").read_text()
    container = api.create_container(
        image,
        entrypoint=["/opt/venv/bin/python", "-c", script, str(host.port)],
        user="0:0",
        host_config=api.create_host_config(auto_remove=True, init=True),
    )
    api.start(container["Id"])
    try:
        found = api.inspect_container(container["Id"])["NetworkSettings"]["Networks"]["bridge"]

        def log() -> list[str]:
            return bytes(api.logs(container["Id"])).decode().splitlines()

        deadline = time.monotonic() + 20
        while "ready" not in log():
            assert time.monotonic() < deadline, log()
            time.sleep(0.05)
        yield World(found["IPAddress"], found["Gateway"], host, log)
    finally:
        api.remove_container(container["Id"], force=True)
        api.close()
        host.close()


async def ask(session: Session, code: str) -> Any:
    """The value of ``answer`` after code with the functions above."""
    run = await session.execute(f"{FETCH}\n{code}\nprint(json.dumps(answer))")
    assert run.status == "ok", run.text
    return json.loads(run.text)


def beside(client: docker.APIClient, namespace: str) -> list[str]:
    """The names of the containers and volumes that are there beside those of sessions."""
    filters = {"label": [f"{name}={value}" for name, value in labels_beside(namespace).items()]}
    containers = [one["Names"][0] for one in client.containers(all=True, filters=filters)]
    return containers + [one["Name"] for one in client.volumes(filters=filters)["Volumes"] or ()]


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_listed_hosts_are_reached_by_http_and_through_tunnels(make_manager: MakeManager, world: World) -> None:
    options = world.options("listed.test", "*.below.test", "port.test:8080")
    session = await (await make_manager(container=options)).throw_away()
    answer = await ask(
        session,
        "answer = [fetch('http://listed.test/'), fetch('http://a.b.below.test/'), fetch('http://port.test:8080/'),"
        " fetch('http://LISTED.test/'), tunnel('listed.test', 443), tunnel('listed.test', 80)]",
    )
    assert answer == ["hello from outside"] * 6
    assert "GET listed.test:443 /tunnelled" in world.log() or "GET listed.test /tunnelled" in world.log()


async def test_what_is_not_listed_is_refused_and_never_looked_up(make_manager: MakeManager, world: World) -> None:
    options = world.options("listed.test", "*.below.test", "port.test:8080")
    session = await (await make_manager(container=options)).throw_away()
    places = [
        *("http://secret-in-a-name.test/", "http://below.test/", "http://listed.test:8080/", "http://port.test/"),
        *("http://sub.listed.test/", "http://evil-listed.test/", f"http://{world.address}/", "http://[::1]/"),
        *("http://listed.test.evil.test/", "http://listed.test@evil.test/"),
        *(f"http://{world.gateway}:{world.host.port}/", "http://169.254.169.254/latest/meta-data/"),
        *("http://localhost/", "http://127.0.0.1:3128/squid-internal-mgr/info", "http://proxy/"),
    ]
    answer = await ask(
        session,
        "os.environ.update(no_proxy='', NO_PROXY='')\n"
        f"answer = [fetch(place) for place in {places}]\n"
        f"answer += [tunnel(*place) for place in [('secret-in-a-name.test', 443), ({world.address!r}, 443),"
        "('listed.test', 22), ('listed.test', 8080), ('127.0.0.1', 3128), ('169.254.169.254', 80)]]\n"
        "lines = ['GET ftp://listed.test:80/ HTTP/1.1', 'GET cache_object://listed.test:80/info HTTP/1.1']\n"
        "lines += ['GET /squid-internal-mgr/info HTTP/1.1', 'GET http://listed.test:80@evil.test/ HTTP/1.1']\n"
        "answer += [403 if raw(line) in (400, 403) else line for line in lines]",
    )
    refused = {403, "Tunnel connection failed: 403 Forbidden"}
    assert [pair for pair in zip(places, answer, strict=False) if pair[1] not in refused] == []
    assert set(answer) == refused
    names = {"secret-in-a-name.test", "below.test", "sub.listed.test", "evil-listed.test", "evil.test", "localhost"}
    assert world.asked().isdisjoint({*names, "listed.test.evil.test", "proxy"})
    assert world.host.seen == []


async def test_listed_names_lead_to_no_private_address(make_manager: MakeManager, world: World) -> None:
    """Also where DNS says so, which others may have in their hands."""
    names = ["gateway.test", "loopback.test", "metadata.test", "neighbour.test", "nowhere.test"]
    options = world.options("listed.test", *names, f"gateway.test:{world.host.port}")
    session = await (await make_manager(container=options)).throw_away()
    answer = await ask(
        session,
        f"answer = [fetch(f'http://{{name}}/') for name in {names}] + [tunnel(name, 443) for name in {names}]\n"
        f"answer += [fetch('http://gateway.test:{world.host.port}/'), fetch('http://listed.test/')]",
    )
    assert answer[-1] == "hello from outside"
    assert set(answer[:-1]) == {403, "Tunnel connection failed: 403 Forbidden"}
    assert world.asked() >= set(names)
    assert world.host.seen == []


async def test_a_name_that_leads_elsewhere_a_moment_later_does_not(make_manager: MakeManager, world: World) -> None:
    options = world.options(f"rebound.test:{world.host.port}")
    session = await (await make_manager(container=options)).throw_away()
    answer = await ask(session, f"answer = [fetch('http://rebound.test:{world.host.port}/') for number in range(30)]")
    assert answer[0] == "hello from outside"
    assert set(answer) <= {"hello from outside", 403}
    assert "rebound.test" in world.asked()
    assert world.host.seen == []


@pytest.mark.parametrize("network", ["none", "allowlist"])
async def test_nothing_is_reached_directly(make_manager: MakeManager, world: World, network: str) -> None:
    """No address, no DNS server, no metadata, no port of the host, whatever a socket is told."""
    options = world.options() if network == "allowlist" else {"network": "none"}
    session = await (await make_manager(container=options)).throw_away()
    assert await ask(session, world.direct(f"secret-{network}")) == [["lo"], 1]
    assert f"secret-{network}.test" not in world.asked()
    assert world.host.seen == []


async def test_the_whole_network_is_the_engines_bridge(make_manager: MakeManager, world: World) -> None:
    options = {"network": "full", "dns": [world.address], "extra_hosts": {"extra": world.address}}
    session = await (await make_manager(container=options)).throw_away()
    code = f"answer = [fetch(f'http://{{name}}/') for name in ('listed.test', 'extra', {world.address!r})]"
    assert await ask(session, code) == ["hello from outside"] * 3
    # so much could be reached in the test above
    answer = await ask(session, world.direct("secret-full"))
    assert {tuple(one[:2]) for one in answer if isinstance(one, list) and len(one) == 5} >= {("udp", world.address)}
    assert "secret-full.test" in world.asked() and world.host.seen != []
    world.host.seen.clear()


async def test_sessions_do_not_reach_each_other_or_each_others_proxy(
    make_manager: MakeManager, world: World, client: docker.APIClient
) -> None:
    manager = await make_manager(container=world.options("listed.test"))
    other_manager = await make_manager(container=world.options("other.test"))
    one, two = await asyncio.gather(manager.throw_away(), other_manager.throw_away())
    await two.execute(
        "import socket, threading\nserver = socket.create_server(('0.0.0.0', 5555))\n"
        "def serve():\n    while True: server.accept()[0].sendall(b'two')\n"
        "threading.Thread(target=serve, daemon=True).start()"
    )
    found = client.inspect_container(two.container_name)
    proxies = client.containers(filters={"label": [f"{LABEL_SESSION}={found['Id']}"], "name": "-proxy-"})
    proxy = proxies[0]["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    places = [("127.0.0.1", 5555), (proxy, 3128), (proxy, 5555)]
    code = f"""
answer = [fetch('http://listed.test/'), fetch('http://other.test/'), tunnel({proxy!r}, 3128)]
for place in {places}:
    try: socket.create_connection(place, 3); answer.append(place)
    except OSError: pass
"""
    refused = "Tunnel connection failed: 403 Forbidden"
    assert await ask(one, code) == ["hello from outside", 403, refused]
    code = "answer = [fetch('http://listed.test/'), fetch('http://other.test/')]"
    assert await ask(two, code) == [403, "hello from outside"]
    # nor does anybody else on the engine's bridge
    with pytest.raises(OSError):
        socket.create_connection((proxy, 3128), 3)


async def test_what_stands_between_is_as_hardened_as_a_session(
    make_manager: MakeManager, world: World, client: docker.APIClient
) -> None:
    session = await (await make_manager(container=world.options())).throw_away()
    found = client.inspect_container(session.container_name)
    assert found["HostConfig"]["NetworkMode"] == "none" and not found["NetworkSettings"]["IPAddress"]
    assert [mount["Type"] for mount in found["Mounts"]] == ["volume"]
    others = client.containers(filters={"label": [f"{LABEL_SESSION}={found['Id']}"]})
    assert len(others) == 2
    for one in others:
        inspected = client.inspect_container(one["Id"])
        host = inspected["HostConfig"]
        assert host["CapDrop"] == ["ALL"] and host["ReadonlyRootfs"] and "no-new-privileges" in host["SecurityOpt"]
        assert host["Memory"] == host["MemorySwap"] == 128 << 20 and host["PidsLimit"] > 0 and host["AutoRemove"]
        assert not host["PortBindings"] and not host["Binds"] and not host["Privileged"]
        assert inspected["Config"]["User"] == "13:13"


async def test_code_does_nothing_to_the_gate(make_manager: MakeManager, world: World) -> None:
    """Though it sees it: its processes are another user's. A new kernel has the network that the last one had."""
    session = await (await make_manager(container=world.options())).throw_away()
    await session.execute("import os, signal; os.kill(-1, signal.SIGKILL)")
    answer = await ask(
        session,
        """
answer = [fetch('http://listed.test/')]
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        if b'socat' in open(f'/proc/{pid}/cmdline', 'rb').read():
            answer.append('seen')
            for attempt in (lambda: os.kill(int(pid), 9), lambda: open(f'/proc/{pid}/environ').read(),
                            lambda: os.listdir(f'/proc/{pid}/root/run'), lambda: open(f'/proc/{pid}/mem', 'r+b')):
                try: attempt(); answer.append('done')
                except OSError: pass
    except FileNotFoundError: pass
answer = sorted(set(answer)) + [fetch('http://listed.test/')]
""",
    )
    assert answer == ["hello from outside", "seen", "hello from outside"]


async def test_a_flood_of_connections_leaves_the_way_open(make_manager: MakeManager, world: World) -> None:
    session = await (await make_manager(container=world.options())).throw_away()
    answer = await ask(
        session,
        """
many = []
for number in range(1000):
    try:
        one = socket.create_connection(("127.0.0.1", 3128), 5)
        one.sendall(b"CONNECT listed.test:443 HTTP/1.1\\r\\nX: ")
        many.append(one)
    except OSError: break
for one in many: one.close()
import time
deadline, answer = time.monotonic() + 60, []
while "hello from outside" not in answer and time.monotonic() < deadline: answer = [fetch("http://listed.test/")]
""",
    )
    assert answer == ["hello from outside"]


async def test_pip_installs_what_a_listed_index_has(make_manager: MakeManager, world: World) -> None:
    manager = await make_manager(container=world.options("index.test"))
    session = await manager.session("installs")
    install = "%pip install -q --index-url http://index.test/simple --trusted-host index.test tinypackage"
    run = await session.execute("try: import tinypackage\nexcept ImportError: print('not there')")
    assert run.text == "not there"
    run = await session.execute(f"{install}\nimport tinypackage; print('installed', tinypackage.ANSWER)")
    assert run.text.splitlines()[-1] == "installed 42", run.text
    assert run.files == ()
    await session.stop()
    # it is among the session's files
    session = await manager.session("installs")
    run = await session.execute(
        "import tinypackage, subprocess, sys; print(tinypackage.ANSWER)\n"
        "print(subprocess.run([sys.executable, '-c', 'import tinypackage']).returncode)"
    )
    assert run.text.splitlines()[-2:] == ["42", "0"]
    await session.stop(purge=True)


async def test_a_container_from_the_pool_has_the_network_of_its_settings(
    make_manager: MakeManager, world: World, client: docker.APIClient
) -> None:
    manager = await make_manager(container=world.options(), pool={"size": 1, "preload": []})
    await (await manager.throw_away()).stop(purge=True)  # a first session starts the pool
    await until(lambda: len(manager._pool._members) == 1)
    waiting = client.inspect_container(manager._pool._members[0].name)["Id"]
    session = await manager.session("from the pool")
    assert client.inspect_container(session.container_name)["Id"] == waiting
    assert await ask(session, "answer = fetch('http://listed.test/')") == "hello from outside"
    await session.stop(purge=True)
    assert client.containers(all=True, filters={"label": [f"{LABEL_SESSION}={waiting}"]}) == []


async def test_all_goes_with_the_session(make_manager: MakeManager, world: World, client: docker.APIClient) -> None:
    manager = await make_manager(container=world.options())
    namespace = manager.settings.namespace
    one, two = await asyncio.gather(manager.session("a"), manager.throw_away())
    assert len(beside(client, namespace)) == 6
    await two.stop(purge=True)
    assert len(beside(client, namespace)) == 3
    await one.stop()
    assert beside(client, namespace) == []


KILLED = """
import asyncio

async def main():
    session = await SessionManager(settings).throw_away()
    print(session.container_name, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_all_ends_where_the_manager_was_killed_and_the_next_sweeps(
    make_settings: MakeSettings, make_manager: MakeManager, world: World, client: docker.APIClient
) -> None:
    settings = make_settings(container=world.options(), limits={"orphan_grace": 1.0})
    namespace = settings.namespace
    process = await asyncio.create_subprocess_exec(*run_python(KILLED, settings), stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        name = (await process.stdout.readline()).decode().strip()
        found = client.inspect_container(name)["Id"]
        assert len(beside(client, namespace)) == 3
    finally:
        process.kill()
        await process.communicate()
    await until(lambda: client.containers(all=True, filters={"label": [f"{LABEL_SESSION}={found}"]}) == [])
    assert len(beside(client, namespace)) == 1, "the volume between them is left"
    # and what a program left that was killed between two requests
    image = ensure_image(client, ImageKind.PROXY, progress=print)
    labels = {**labels_beside(namespace), LABEL_SESSION: "0" * 64}
    client.create_container(image, name=f"{namespace}-never-started", labels=labels)
    other = labels | {LABEL_NAMESPACE: f"{namespace}-other"}
    stranger = client.create_container(image, labels=other)["Id"]
    try:
        sweeper = await make_manager()
        await Reaper(sweeper.engine, sweeper._thread, sweeper.settings).sweep()
        assert beside(client, namespace) == []
        assert client.inspect_container(stranger)["Id"] == stranger
    finally:
        client.remove_container(stranger, force=True)


async def test_a_proxy_that_does_not_start_is_an_error_and_leaves_nothing(
    make_manager: MakeManager, world: World, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_proxy, "configuration", lambda options: "http_port nonsense\n")
    manager: SessionManager = await make_manager(container=world.options())
    with pytest.raises(EngineError, match="The proxy for a session's network does not start"):
        await manager.throw_away()
    assert await manager.list() == [] and beside(client, manager.settings.namespace) == []
