"""Python sessions for chat assistants: each key its own container, with an IPython kernel that remembers.

The names below are the public surface; everything else may change.
"""

from typing import TYPE_CHECKING

from .errors import (
    ContainerGone,
    EndpointError,
    EndpointRefused,
    EngineError,
    EngineUnavailable,
    FileError,
    FileMissing,
    FileRefused,
    FileTooLarge,
    FrameError,
    HostError,
    ImageBuildFailed,
    ImageMissing,
    KernelStartFailed,
    LinkBroken,
    LinkError,
    NameTaken,
    NotebookError,
    SandboxError,
    SessionClosed,
    SettingsError,
    TooManySessions,
    VolumeInUse,
)

if TYPE_CHECKING:
    from .blocking import BlockingSession, open_session
    from .changed_files import ChangedFile
    from .container_options import ContainerOptions
    from .execution import Execution, Status
    from .journal import Journal, JournalCell, JournalStart, read_journal
    from .manager import SessionManager, SessionStatus
    from .outputs import Display, Error, Output, Result, Stream
    from .session import Session
    from .settings import Limits, Pool, Saving, Settings, Workspaces
    from .variables import SavedVariables, Variable
    from .workspace import FileEntry, WorkspaceFiles
else:
    # Each module is loaded when a name of it is first wanted: whoever wants none of them, such as the command that
    # shows its help, need not wait for pydantic and asyncio. A type checker reads the imports above instead, and still
    # knows which names there are not.
    _MODULES = {
        "blocking": ("BlockingSession", "open_session"),
        "changed_files": ("ChangedFile",),
        "container_options": ("ContainerOptions",),
        "execution": ("Execution", "Status"),
        "journal": ("Journal", "JournalCell", "JournalStart", "read_journal"),
        "manager": ("SessionManager", "SessionStatus"),
        "outputs": ("Display", "Error", "Output", "Result", "Stream"),
        "session": ("Session",),
        "settings": ("Limits", "Pool", "Saving", "Settings", "Workspaces"),
        "variables": ("SavedVariables", "Variable"),
        "workspace": ("FileEntry", "WorkspaceFiles"),
    }
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

    def __getattr__(name):
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        globals()[name] = found  # so that it is asked for once
        return found

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
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
