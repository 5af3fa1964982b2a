"""The compose files, brought up: a real Open WebUI that reaches the engine through the proxy, and the tool installed.

An image made from the distribution's packages stands in for those of Open WebUI and nginx, which are large and need not
be within reach; Open WebUI itself comes from the environment that the other tests use, mounted into it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import yaml

from session_manager.engine.docker_host import connect
from session_manager.images.base import ensure_base
from session_manager.images.build import proxies
from session_manager.images.context import CA_BUNDLE, build_context, host_ca_bundle
from tests.ask_endpoint import MODEL, ScriptedEndpoint, serve

from .openwebui import HOME, PASSWORD, ROOT, OpenWebUI, User, model_that_obeys, settings_of

pytestmark = pytest.mark.timeout(1500)

FILES = ("openwebui-compose-dev.yml", "openwebui-compose-proxy.yml")
BESIDE = ("Dockerfile.openwebui", "docker-socket-proxy.conf", ".dockerignore", *FILES)
STAND_IN = r"""
ARG BASE
FROM ${BASE}
COPY Dockerfile ca-bundle.cr[t] /build/
RUN if [ -s /build/ca-bundle.crt ]; then \
        echo 'Acquire::https::CAInfo "/build/ca-bundle.crt";' > /etc/apt/apt.conf.d/80ca-bundle; \
    fi \
    && apt-get -qq update && apt-get -qq install --no-install-recommends nginx-light > /dev/null \
    && python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
"""

Compose = Callable[..., str]


@pytest.fixture(scope="module")
def client() -> Iterator[docker.APIClient]:
    found = connect()
    yield found
    found.close()


@pytest.fixture(scope="module")
def stand_in(client: docker.APIClient) -> Iterator[str]:
    """The image that stands in for others."""
    name = f"docker-interpreter-test/stand-in-{uuid.uuid4().hex[:8]}:1"
    context = build_context({"Dockerfile": STAND_IN.encode(), CA_BUNDLE: host_ca_bundle()[1]})
    arguments = {**proxies(), "BASE": ensure_base(client, print)}
    built = client.build(
        fileobj=context, custom_context=True, tag=name, buildargs=arguments, decode=True, rm=True, forcerm=True
    )
    lines = list(built)
    assert not any("error" in line for line in lines), lines[-3:]
    yield name
    client.remove_image(name, force=True)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ScriptedEndpoint]:
    """The model, where containers reach it."""
    with serve(model_that_obeys, "0.0.0.0") as found:  # noqa: S104
        yield found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the files need of a checkout, and no more: .dockerignore names it."""
    folder = tmp_path_factory.mktemp("project")
    named = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in (*BESIDE, *named):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    (folder / CA_BUNDLE).write_bytes(host_ca_bundle()[1])
    return folder


def mounted(endpoint: ScriptedEndpoint, namespace: str) -> dict[str, Any]:
    """What puts Open WebUI into the image that stands in for its own."""
    python = Path((HOME / "pyvenv.cfg").read_text().partition("home = ")[2].splitlines()[0]).parent
    model = endpoint.base_url.replace("0.0.0.0", "host.docker.internal")  # noqa: S104
    packages = f"/opt/venv/lib/{next((HOME / 'lib').glob('python3.*')).name}/site-packages"
    folders = [HOME, *([] if python == Path("/usr") else [python])]
    return {
        "services": {
            "open-webui": {
                "entrypoint": [str(HOME / "bin" / "open-webui"), "serve", "--host", "0.0.0.0", "--port", "8080"],  # noqa: S104
                "environment": {
                    **settings_of(Path("/app/backend/data"), model),
                    "PYTHONPATH": packages,
                    "DOCKER_INTERPRETER_NAMESPACE": namespace,
                },
                "volumes": [f"{folder}:{folder}:ro" for folder in folders],
            }
        }
    }


@pytest.fixture(scope="module")
def webui(
    client: docker.APIClient, project: Path, stand_in: str, endpoint: ScriptedEndpoint, namespace: str
) -> Iterator[tuple[OpenWebUI, Compose]]:
    """All of it, up, with the tool installed."""
    (project / "mounted.yml").write_text(yaml.safe_dump(mounted(endpoint, namespace)))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    program = shutil.which("docker-compose")
    command = [program] if program else ["docker", "compose"]
    command += ["--project-name", f"docker-interpreter-{uuid.uuid4().hex[:8]}"]
    command += [word for name in (*FILES, "mounted.yml") for word in ("-f", name)]
    variables = {
        "OPENWEBUI_IMAGE": stand_in,
        "NGINX_IMAGE": stand_in,
        "OPENWEBUI_PORT": str(port),
        "WEBUI_ADMIN_PASSWORD": PASSWORD,
        "OPENAI_API_KEY": "x",
    }

    def compose(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments], env={**os.environ, **variables}, capture_output=True, text=True, cwd=project
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    try:
        compose("up", "--detach", "--build")
        (installing,) = compose("ps", "--quiet", "install-tool").split()
        ended = client.wait(installing, timeout=900)["StatusCode"]
        assert ended == 0, compose("logs", "--tail=40")
        yield OpenWebUI(project, "", {}, port=port), compose
    finally:
        compose("down", "--volumes", "--rmi", "local")


def test_code_runs_in_a_chat(webui: tuple[OpenWebUI, Compose], client: docker.APIClient, namespace: str) -> None:
    server, compose = webui
    fields = {"email": "admin@example.org", "password": PASSWORD}
    signed_in = requests.post(f"{server.url}/api/v1/auths/signin", json=fields, timeout=60)
    admin = User(server, signed_in.json())
    assert [model["id"] for model in admin.ask("GET", "/api/models")["data"]] == [MODEL], compose("logs", "--tail=40")
    chat = admin.chat()
    chat.run("x = 40")
    answer = chat.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint(x + 2)")
    assert "42" in answer["content"], compose("logs", "--tail=40")
    assert [file["type"] for file in answer["files"]] == ["image"]
    # on this engine, and Open WebUI has the proxy to reach it, not the socket
    assert client.containers(filters={"name": namespace})
    (container,) = compose("ps", "--quiet", "open-webui").split()
    sockets = {mount["Destination"]: mount["Source"] for mount in client.inspect_container(container)["Mounts"]}
    assert sockets["/var/run/docker.sock"] == "/dev/null"


def test_it_can_be_installed_again(webui: tuple[OpenWebUI, Compose]) -> None:
    _, compose = webui
    assert "Updated the tool python_sessions" in compose("run", "--rm", "install-tool")
