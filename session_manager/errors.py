"""What can go wrong outside a cell, as one tree.

::

    SandboxError
    ├── SettingsError            a setting is wrong; names the field and where it came from
    ├── HostError                this machine can't run what was asked for
    ├── EngineError              the container engine said no
    │   ├── EngineUnavailable    nothing answers, or we may not ask
    │   ├── ImageMissing         the image is not on the engine
    │   ├── ImageBuildFailed     building it did not work; carries the end of the build's output
    │   ├── NameTaken            a container of that name exists (two callers met; attach instead)
    │   ├── ContainerGone        the container ended or was removed
    │   └── VolumeInUse          a volume can't be removed, since a container has it
    ├── LinkError                the stream into a container
    │   ├── LinkBroken           it ended
    │   │   └── SupervisorGone   nothing of ours is at its other end any more
    │   └── FrameError           what came out is not the link's protocol
    ├── KernelStartFailed        a container runs, but no kernel answers in it
    ├── TooManySessions          as many run as the settings allow, and none can make room
    ├── SessionClosed            the session or its manager was closed by this program
    ├── FileError                a file could not be brought into a session or out of it
    │   ├── FileMissing          there is none of this name
    │   ├── FileRefused          it is no ordinary file, or leads out of the workspace, or can't be written
    │   └── FileTooLarge         it is larger than the settings allow, or there are too many
    ├── NotebookError            a notebook or script can't be read
    └── EndpointError            a model can't be asked, or its reply can't be used
        └── EndpointRefused      the endpoint does not take the messages as they are

What a cell does (raise, run too long, exhaust its memory, kill its kernel) is no exception: it is the
:attr:`~session_manager.Execution.status` of its execution.
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of all errors of this package.

    ``message`` is one sentence that says what happened; ``remedy``, where there is one, says what to do.
    """

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class SettingsError(SandboxError):
    """A setting is unknown, of the wrong type, out of bounds, or not allowed."""


class HostError(SandboxError):
    """This machine can't run what was asked for."""


class EngineError(SandboxError):
    """The container engine refused or failed."""


class EngineUnavailable(EngineError):
    """No engine answers, or this user may not speak to it."""


class ImageMissing(EngineError):
    """The image is not on the engine."""


class ImageBuildFailed(EngineError):
    """Building an image failed; the message carries the end of the build's output."""


class NameTaken(EngineError):
    """A container of this name exists already: two callers met, and the other one created it."""


class ContainerGone(EngineError):
    """The container has ended or was removed."""


class VolumeInUse(EngineError):
    """A container has the volume, which can't be removed now."""


class LinkError(SandboxError):
    """The stream into a container failed."""


class LinkBroken(LinkError):
    """The stream into the container ended."""


class SupervisorGone(LinkBroken):
    """The container runs, but its supervisor can't be reached any more: the code in it has seen to that."""


class FrameError(LinkError):
    """What came out of the container is not the link's protocol."""


class KernelStartFailed(SandboxError):
    """The container runs, but no kernel came up in it in time."""


class TooManySessions(SandboxError):
    """As many sessions run as the settings allow, and none of them can make room."""


class SessionClosed(SandboxError):
    """The session, or its manager, was closed by this program."""


class FileError(SandboxError):
    """A file could not be brought into a session, or out of it."""


class FileMissing(FileError):
    """There is no file of this name in the session."""


class FileRefused(FileError):
    """It is no ordinary file, leads out of the workspace, or can't be written."""


class FileTooLarge(FileError):
    """It is larger than the settings allow, or there are too many."""


class NotebookError(SandboxError):
    """A notebook or script can't be read."""


class EndpointError(SandboxError):
    """A model's endpoint can't be asked, or broke its reply off, or the model's replies can't be used."""


class EndpointRefused(EndpointError):
    """The endpoint does not take the messages as they are: it may do so with other ones."""
