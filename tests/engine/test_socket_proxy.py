"""Sessions through the proxy before the engine's socket: its list of calls is long enough, and no longer."""

from __future__ import annotations

import asyncio
import io
import shutil
import socket
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from benchmarks.sessions import remove_all
from session_manager import SessionManager, SettingsError
from session_manager.engine.docker_host import connect, find_docker_host
from session_manager.images import ImageKind, ensure_image
from tests.conftest import MakeSettings

CONFIGURATION = Path(__file__).parents[2] / "docker-socket-proxy.conf"


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[str]:
    """The address of the proxy, which runs as it does in the compose file, but for where it listens."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert program is not None, "nginx is needed: `make proxy` installs it on Debian and Ubuntu, as root"
    host = find_docker_host().url
    assert host.startswith("unix://"), "the proxy is for an engine on this machine"
    path = tmp_path / "proxy.sock"
    text = CONFIGURATION.read_text()
    for old, new in (
        ("listen 2375;", f"listen unix:{path};"),
        ("/tmp/docker-socket-proxy", str(tmp_path / "nginx")),
        ("unix:/var/run/docker.sock", host.replace("unix://", "unix:")),
    ):
        assert old in text
        text = text.replace(old, new)
    configuration = tmp_path / "nginx.conf"
    configuration.write_text(text)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([program, "-g", "daemon off;", "-c", configuration], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 20
            while not path.exists():
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
            yield f"unix://{path}"
        finally:
            process.terminate()
            process.wait(20)


async def test_the_calls_that_it_allows_are_enough(proxied: str, make_settings: MakeSettings) -> None:
    settings = make_settings(
        docker_host=proxied, pool={"size": 1}, limits={"idle_timeout": 1.0}, workspaces={"total_bytes": 1 << 40}
    )
    async with SessionManager(settings) as manager:
        session = await manager.session("proxied")
        await session.execute("x = 41")
        await session.files.put(b"from outside" * 100_000, "in.txt")
        assert (await session.execute("x += 1; x, len(open('in.txt').read())")).text == "(42, 1200000)"
        assert len(await session.files.get("in.txt")) == 1_200_000
        (listed,) = [one for one in await manager.list() if one.key == "proxied"]
        assert listed.state == "idle"
        copy = await manager.fork("proxied", "copy")
        assert (await copy.execute("x")).text.endswith("42")
        await copy.stop(purge=True)
        endless = asyncio.create_task(session.execute("while True: pass", timeout=1))
        assert (await endless).status == "interrupted"
        async with asyncio.timeout(60):
            while any(one.key == "proxied" for one in await manager.list()):
                await asyncio.sleep(0.3)
        async with manager.files("proxied") as files:
            assert "in.txt" in [entry.path for entry in await files.list()]
        await manager.stop("proxied", purge=True)
    await remove_all(settings)  # the pool
    network = {"network": "full", "network_name": "none-of-this-name"}
    async with SessionManager(make_settings(docker_host=proxied, container=network)) as manager:
        with pytest.raises(SettingsError, match="has no network"):
            await manager.throw_away()


def test_images_are_built_through_it(proxied: str) -> None:
    client = connect(proxied)
    name, label = f"docker-interpreter-test/proxied-{uuid.uuid4().hex[:8]}", "docker-interpreter.test-of-proxy"
    try:
        parent = ensure_image(client, ImageKind.DEFAULT, progress=print)
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            text = f"FROM {parent}\nLABEL {label}=1\n".encode()
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
        lines = list(client.build(fileobj=io.BytesIO(file.getvalue()), custom_context=True, tag=name, decode=True))
        assert any("Successfully tagged" in line.get("stream", "") for line in lines), lines
        client.tag(name, name, "other")
        client.remove_image(f"{name}:other")
        client.remove_image(name)
        client.prune_images({"dangling": True, "label": label})
        with pytest.raises(docker.errors.NotFound):
            client.inspect_image(name)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/secrets"),
        ("GET", "/configs"),
        ("GET", "/info"),
        ("GET", "/events"),
        ("GET", "/containers/some/export"),
        ("GET", "/containers/some/archive?path=/"),
        ("PUT", "/containers/some/archive?path=/"),
        ("POST", "/containers/some/update"),
        ("POST", "/containers/some/exec/../update"),
        ("POST", "/containers/%2e%2e/start"),
        ("POST", "/swarm/init"),
        ("POST", "/plugins/pull"),
        ("POST", "/networks/create"),
        ("POST", "/commit?container=some"),
        ("POST", "/auth"),
        ("POST", "/images/load"),
        ("GET", "/images/some/get"),
        ("GET", "/images/some/../../secrets/json"),
        ("GET", "/images/some%2f..%2f..%2fsecrets/json"),
        ("DELETE", "/networks/some"),
        ("DELETE", "/containers/some/../../networks/some"),
    ],
)
def test_what_it_does_not_allow(proxied: str, method: str, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:  # the path goes out as it is, which no client does
        connection.settimeout(20)
        connection.connect(proxied.removeprefix("unix://"))
        connection.sendall(f"{method} /v1.41{path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n".encode())
        said = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    assert said.startswith("HTTP/1.1 403") and "does not allow" in said


def test_what_it_refuses_is_a_sentence(proxied: str) -> None:
    client = connect(proxied)
    try:
        with pytest.raises(docker.errors.APIError, match="does not allow GET /v1"):
            client.info()
    finally:
        client.close()
