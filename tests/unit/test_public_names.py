"""The public surface, name by name: whoever changes it means to."""

from __future__ import annotations

import subprocess
import sys

import session_manager

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


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh Python has after a statement."""
    listing = f"{statement}; import sys; print(*(name.partition('.')[0] for name in sys.modules))"
    shown = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, timeout=60)
    return set(shown.stdout.split())


def test_the_public_names_are_these() -> None:
    assert sorted(session_manager.__all__) == PUBLIC


def test_every_public_name_is_there() -> None:
    for name in PUBLIC:
        assert getattr(session_manager, name) is not None


def test_errors_are_the_public_ones() -> None:
    for name in PUBLIC:
        found = getattr(session_manager, name)
        if isinstance(found, type) and issubclass(found, Exception):
            assert issubclass(found, session_manager.SandboxError), name
            assert found("What happened.", "What to do.").remedy == "What to do."


def test_an_import_does_not_load_what_only_one_engine_needs() -> None:
    loaded = loaded_by("import session_manager")
    assert "session_manager" in loaded
    assert not loaded & {"docker", "requests", "urllib3", "ipykernel", "IPython", "typer", "rich", "nbformat"}
