"""Small files in the runtime directory, where the code that runs can put what it likes in their place.

A pipe there would be waited for for ever, and a device has no end. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def read_ordinary(path: Path, most: int) -> bytes:
    """Up to so many bytes of a file. Raises OSError where it is missing, or no ordinary file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no ordinary file")
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def write_anew(path: Path, content: bytes) -> None:
    """A new file in the place of whatever is there. Raises OSError where there is no room for it."""
    remove(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Whatever is there, if something is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear(directory: Path, keep: str) -> None:
    """Remove all that is in a directory but one name."""
    for entry in os.listdir(directory):  # noqa: PTH208 - names are enough
        if entry != keep:
            remove(directory / entry)
