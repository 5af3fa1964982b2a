"""A world outside for sessions: servers of the tests' own, and the code with which sessions try to reach them."""

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

from session_manager import Session
from session_manager.engine.docker_host import connect
from session_manager.images import ImageKind, ensure_image
from session_manager.registry import labels_beside

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
