"""What sessions reach of the network, with servers of the tests' own, and what they don't."""

from __future__ import annotations

import asyncio
import socket
import uuid

import docker
import pytest

from session_manager import SettingsError
from session_manager.engine.base import LABEL_SESSION
from tests.conftest import MakeManager

from .outside import World, ask

# on a machine without the proxy's image, the first test waits for it
pytestmark = pytest.mark.timeout(600)


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


async def test_sessions_are_on_the_network_that_is_named(
    make_manager: MakeManager, world: World, client: docker.APIClient
) -> None:
    """One without a way out, on which they find each other and nothing that is elsewhere."""
    name = f"docker-interpreter-test-{uuid.uuid4().hex[:8]}"
    options = {"network": "full", "network_name": name}
    manager = await make_manager(container=options)
    with pytest.raises(SettingsError, match=f"the engine has no network '{name}'"):
        await manager.throw_away()
    client.create_network(name, driver="bridge", internal=True)
    try:
        one, two = await asyncio.gather(manager.throw_away(), manager.throw_away())
        await two.execute(
            "import socket, threading\nserver = socket.create_server(('0.0.0.0', 5555))\n"
            "threading.Thread(target=lambda: server.accept()[0].sendall(b'two'), daemon=True).start()"
        )
        found = client.inspect_container(two.container_name)["NetworkSettings"]["Networks"]
        assert list(found) == [name]
        code = f"answer = [socket.create_connection(({found[name]['IPAddress']!r}, 5555), 20).recv(10).decode()]"
        assert await ask(one, code) == ["two"]
        answer = await ask(one, world.direct("secret-named"))
        assert [entry for entry in answer if isinstance(entry, list) and world.address in entry] == []
        assert "secret-named.test" not in world.asked()
        world.host.seen.clear()  # the engine's host is on the network, as its gateway
        container = client.inspect_container(one.container_name)
        assert container["HostConfig"]["NetworkMode"] == name
    finally:
        await manager.close()
        client.remove_network(name)


async def test_the_host_s_own_network_is_not_reached_by_its_id(
    make_manager: MakeManager, client: docker.APIClient
) -> None:
    number = client.inspect_network("host")["Id"]
    for name in (number, number[:12]):
        manager = await make_manager(container={"network": "full", "network_name": name})
        with pytest.raises(SettingsError, match="which is 'host' of the driver 'host'"):
            await manager.throw_away()


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
