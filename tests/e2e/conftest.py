"""A real Open WebUI for the tests of its tool: started once, on containers, with a model that obeys."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.sessions import remove_all
from session_manager import Settings
from session_manager.single_file import write
from tests.ask_endpoint import ScriptedEndpoint, serve

from .openwebui import ROOT, OpenWebUI, User, model_that_obeys

TOOL_FILE = ROOT / "openwebui_tool.py"
OPTIONS = "mem_limit: 512m\n"


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """What sessions of this run are named after; they are removed at its end."""
    name = f"webui-{os.getpid()}-{secrets.token_hex(3)}"
    yield name
    asyncio.run(remove_all(Settings(namespace=name)))


@pytest.fixture(scope="session")
def model() -> Iterator[ScriptedEndpoint]:
    """The model behind Open WebUI."""
    with serve(model_that_obeys) as endpoint:
        yield endpoint


@pytest.fixture(scope="session", params=["package installed", "single file"])
def tool_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tool: the short one, and the one with the package inside where the package is not installed."""
    if request.param == "package installed":
        return TOOL_FILE
    built = tmp_path_factory.mktemp("dist") / "openwebui_tool.py"
    write(built)
    return built


@pytest.fixture(scope="session")
def tool_text(tool_file: Path) -> str:
    """What is in it."""
    return tool_file.read_text()


@pytest.fixture(scope="session")
def environment(tool_file: Path, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a server of Open WebUI is started with."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_INTERPRETER_")}
    package = str(ROOT) if tool_file == TOOL_FILE else ""
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**inherited, "DOCKER_INTERPRETER_NAMESPACE": namespace, "XDG_CACHE_HOME": cache, "PYTHONPATH": package}


@pytest.fixture(scope="session")
def webui(
    model: ScriptedEndpoint, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenWebUI]:
    """The server."""
    server = OpenWebUI(tmp_path_factory.mktemp("openwebui") / "data", model.base_url, environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def admin(webui: OpenWebUI, tool_file: Path) -> User:
    """The administrator, who has installed the tool for everybody."""
    admin = webui.sign_up("admin")
    admin.install(tool_file, DOCKER_IMAGE="example", DOCKER_YAML_OPTIONS=OPTIONS)
    admin.share()
    return admin


@pytest.fixture(scope="session")
def user(webui: OpenWebUI, admin: User) -> User:
    """Somebody else."""
    return admin.add("somebody")


@pytest.fixture
def pictures() -> Path:
    """Where what the browser shows is left, for people to look at."""
    folder = ROOT / "build" / "e2e"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
