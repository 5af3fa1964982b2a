"""Python sessions for chat assistants: each key its own container, with an IPython kernel that remembers.

The names below are the public surface; everything else may change.
"""

from .blocking import BlockingSession, open_session
from .changed_files import ChangedFile
from .container_options import ContainerOptions
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
from .execution import Execution, Status
from .journal import Journal, JournalCell, JournalStart, read_journal
from .manager import SessionManager, SessionStatus
from .outputs import Display, Error, Output, Result, Stream
from .session import Session
from .settings import Limits, Pool, Saving, Settings, Workspaces
from .variables import SavedVariables, Variable
from .workspace import FileEntry, WorkspaceFiles

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
