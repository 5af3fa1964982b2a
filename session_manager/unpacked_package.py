"""How a tool that carries this package in its own text makes it importable. Copied into such a file, word for word.

It uses the standard library alone, and its names begin with an underscore: Open WebUI offers a tool's public ones.
"""

from __future__ import annotations

import hashlib as _hashlib
import os as _os
import shutil as _shutil
import sys as _sys
import tempfile as _tempfile
from pathlib import Path as _Path

_MARK = "docker-interpreter-tool"


def _install_package(sources: dict[str, str]) -> _Path:
    """Write the package into a private folder of this user, once for each content, and let Python import it from there.

    Real files, and not an importer that serves them from memory: images are built from some of them, plain processes
    run others, templates are read by their paths, and a traceback can show their lines.

    :raises OSError: there is no place for them.
    """
    contents = {name: text.encode() for name, text in sources.items()}
    digest = _hashlib.sha256(b"".join(b"%r %r" % pair for pair in sorted(contents.items()))).hexdigest()[:16]
    folder = _unpacked(contents, digest)
    # A text that was pasted anew brings another version: the old one's modules would be found first. Modules that
    # came from an installed package stay, since what this process runs already holds on to them.
    for name, module in list(_sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] == "session_manager" and _MARK in file and not file.startswith(f"{folder}{_os.sep}"):
            del _sys.modules[name]
    _sys.path[:] = [str(folder), *(entry for entry in _sys.path if _MARK not in entry)]
    return folder


def _unpacked(contents: dict[str, bytes], digest: str) -> _Path:
    """The folder that holds exactly these files; made where it is missing, or is not as it was written."""
    places = [_os.environ.get("XDG_CACHE_HOME") or str(_Path("~/.cache").expanduser()), _tempfile.gettempdir()]
    problem = OSError("There is no folder for the package.")
    for place in places:
        # nobody else may be able to put a file there: it is this process's code
        parent = _Path(place) / f"{_MARK}-{_os.getuid()}"
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = parent.lstat()
            if parent.is_symlink() or status.st_uid != _os.getuid() or status.st_mode & 0o077:
                raise OSError(f"{parent} is open to others.")
            folder = parent / digest
            if _holds(folder, contents):
                return folder
            fresh = _Path(_tempfile.mkdtemp(prefix=f"{digest}-", dir=parent))
            for name, content in contents.items():
                file = fresh / name
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                file.write_bytes(content)
            return _put_in_place(fresh, folder, contents)
        except OSError as error:
            problem = error
    raise problem


def _put_in_place(fresh: _Path, folder: _Path, contents: dict[str, bytes]) -> _Path:
    """Rename a folder to its name in one step, so that no other worker ever imports from half of it."""
    try:
        fresh.rename(folder)
    except OSError:
        if not _holds(folder, contents):
            return fresh  # the one that is there was tampered with, and may be in use: leave it
        _shutil.rmtree(fresh)  # another worker was faster
    return folder


def _holds(folder: _Path, contents: dict[str, bytes]) -> bool:
    """Whether each file is there, word for word."""
    try:
        return all((folder / name).read_bytes() == content for name, content in contents.items())
    except OSError:
        return False
