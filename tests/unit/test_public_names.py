"""The public surface, name by name: whoever changes it means to."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import session_manager
from session_manager.single_file import tool_path

PUBLIC = [
    "BlockingSession",
    "ChangedFile",
    "ContainerGone",
    "ContainerOptions",
    "Display",
    "EndpointError",
    "EndpointRefused",
    "EngineError",
    "EngineUnavailable",
    "Error",
    "Execution",
    "FileEntry",
    "FileError",
    "FileMissing",
    "FileRefused",
    "FileTooLarge",
    "FrameError",
    "HostError",
    "ImageBuildFailed",
    "ImageMissing",
    "Journal",
    "JournalCell",
    "JournalStart",
    "KernelStartFailed",
    "Limits",
    "LinkBroken",
    "LinkError",
    "NameTaken",
    "NotebookError",
    "Output",
    "Pool",
    "Result",
    "SandboxError",
    "SavedVariables",
    "Saving",
    "Session",
    "SessionClosed",
    "SessionManager",
    "SessionStatus",
    "Settings",
    "SettingsError",
    "Status",
    "Stream",
    "TooManySessions",
    "Variable",
    "VolumeInUse",
    "WorkspaceFiles",
    "Workspaces",
    "open_session",
    "read_journal",
]


CALL = """
import asyncio, sys
from types import ModuleType
text = open(sys.argv[1]).read()
module = ModuleType("tool_probe")
exec(compile(text, "<string>", "exec", dont_inherit=True), module.__dict__)
print(asyncio.run(module.Tools().list_python_files()))
"""
HELP = "import sys; sys.argv[1:] = {!r}; from session_manager.cli import main\ntry: main()\nexcept SystemExit: pass"


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh Python has after a statement."""
    listing = f"{statement}\nimport sys; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, timeout=60)
    return set(shown.stdout.splitlines()[-1].split())


def test_the_public_names_are_these() -> None:
    assert sorted(session_manager.__all__) == PUBLIC


def test_every_public_name_is_there() -> None:
    for name in PUBLIC:
        assert getattr(session_manager, name) is not None
    assert set(PUBLIC) <= set(dir(session_manager))


def test_type_checkers_read_of_the_same_names_and_places() -> None:
    """What is loaded when it is wanted stands in the file twice."""
    tree = ast.parse(Path(session_manager.__file__).read_text())
    (for_checkers,) = [one for one in tree.body if isinstance(one, ast.If)]
    read = {
        one.module: tuple(name.name for name in one.names)
        for one in for_checkers.body
        if isinstance(one, ast.ImportFrom)
    }
    assert read == vars(session_manager)["_MODULES"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        session_manager.Nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_errors_are_the_public_ones() -> None:
    for name in PUBLIC:
        found = getattr(session_manager, name)
        if isinstance(found, type) and issubclass(found, Exception):
            assert issubclass(found, session_manager.SandboxError), name
            assert found("What happened.", "What to do.").remedy == "What to do."


def test_an_import_loads_nothing_before_a_name_is_wanted() -> None:
    loaded = loaded_by("import session_manager")
    assert "session_manager" in loaded
    assert not loaded & {"asyncio", "docker", "jupyter_client", "pydantic", "requests", "yaml", "zmq"}


def test_every_name_at_once_does_not_load_what_sessions_of_one_engine_need() -> None:
    loaded = loaded_by("from session_manager import *")
    assert "session_manager.manager" in loaded
    assert not loaded & {
        "docker",
        "requests",
        "urllib3",
        "jupyter_client",
        "zmq",
        "ipykernel",
        "IPython",
        "typer",
        "rich",
        "nbformat",
    }


@pytest.mark.parametrize(
    "words", [[], ["sessions"], ["image", "build"], ["run"], ["replay"], ["ask"], ["tool", "check"]]
)
def test_help_loads_nothing_that_only_a_command_s_work_needs(words: list[str]) -> None:
    loaded = loaded_by(HELP.format([*words, "--help"]))
    assert "typer" in loaded
    assert not loaded & {"asyncio", "docker", "jupyter_client", "nbformat", "zmq", "session_manager.settings"}


def test_the_tool_names_a_package_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "jupyter_client.py").write_text("raise ModuleNotFoundError('No module', name='jupyter_client')")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    said = subprocess.run(
        [sys.executable, "-c", CALL, str(tool_path())],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "(jupyter_client is missing)" in said.stdout
