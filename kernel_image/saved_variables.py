"""Keeps the variables of a session on disk, so that a new kernel can have them again.

``save`` writes them one by one, ``restore`` reads them one by one: what can not be saved or read fails alone, with a
reason. A directory holds::

    manifest.json       which save is valid, and what it has; replaced atomically
    0123456789abcdef/   the files of one save, 0.pickle and so on; others than the manifest's are left-overs

A variable that holds the very object of an earlier variable refers to it, so that both hold one object again.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pickle
import re
import secrets
import shutil
import sys
import time
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kernel_image.namespace_pickle import (
    HELPERS,
    NamespacePickler,
    NotWritten,
    OutOfTime,
    Sink,
    Source,
    TimeLimit,
    TooLarge,
    Unpickler,
    attempt,
    describe_error,
)

MAX_VARIABLES = 10_000
MANIFEST = "manifest.json"
FORMAT = 1
SAVE = re.compile(r"[0-9a-f]{16}")
OWN = re.compile(r"_(i\d*|ii|iii|ih|oh|dh|exit_code|\d+)?")  # IPython's names among those with one underscore
ATOMS = (type(None), bool, int, float, complex, str, bytes)  # whose identity says nothing
EMPTY = ()
NO_TIME = "no time left"


# -- saving ---------------------------------------------------------------------------------------------------


def save(
    namespace: dict[str, Any],
    directory: Path,
    *,
    skip: Collection[str],
    seconds: float,
    max_bytes: int,
    reason: str = "",
) -> dict[str, Any]:
    """Write the user's variables, in the order of their definition, in place of those saved in ``directory`` before.

    ``skip`` has the names that are not the user's. ``seconds`` and ``max_bytes`` are for all together. Gives
    ``saved`` (names), ``failed`` (``name`` and ``reason``), ``bytes``, ``at`` (Unix time) and ``reason``. When the
    directory can not be written to, the report has an ``error``, and the save before stays. Only what interrupts
    (``KeyboardInterrupt``) is raised, and then too the save before stays.
    """
    at = time.time()
    generation = directory / secrets.token_hex(8)
    replaced = False
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_others(directory, current_generation(directory))
        generation.mkdir(mode=0o700)
        saving = Saving(namespace, generation, max_bytes)
        with TimeLimit(seconds) as limit:
            for name in user_names(namespace, skip):
                saving.add(name, limit)
        manifest = {
            "format": FORMAT,
            "python": sys.implementation.cache_tag,
            "generation": generation.name,
            "at": at,
            "reason": reason,
            "variables": saving.variables,
            "failed": saving.failed,
        }
        replace_manifest(directory, manifest)
        replaced = True
        remove_others(directory, generation.name)
    except (OSError, NotWritten) as error:
        if not replaced:
            text = describe_error(error.args[0] if isinstance(error, NotWritten) else error)
            return {"saved": [], "failed": [], "bytes": 0, "at": at, "reason": reason, "error": text}
    finally:
        if not replaced:
            shutil.rmtree(generation, ignore_errors=True)
    names = [variable["name"] for variable in saving.variables]
    return {"saved": names, "failed": saving.failed, "bytes": saving.bytes, "at": at, "reason": reason}


class Saving:
    """What one save has written so far into the directory ``generation``."""

    def __init__(self, namespace: dict[str, Any], generation: Path, max_bytes: int) -> None:
        self.namespace = namespace
        self.generation = generation
        self.max_bytes = max_bytes
        self.bytes = 0
        self.variables: list[dict[str, Any]] = []
        self.failed: list[dict[str, str]] = []
        self.entries: dict[int, dict[str, Any] | str] = {}  # by id: the manifest's entry, or why there is none
        self.cells: dict[int, Any] = {}
        self.known: dict[int, Any] = {id(namespace): "namespace", id(self.cells): "cells"}
        self.known |= {id(helper): name for name, helper in HELPERS.items()}
        self.values: list[Any] = []  # kept alive, for their ids must stay theirs

    def add(self, name: str, limit: TimeLimit) -> None:
        """Save one variable, or note why not. Raises OSError and ``NotWritten``."""
        if name not in self.namespace:
            return  # a __reduce__ deleted it
        value = self.namespace[name]
        self.values.append(value)
        entry = self.entries.get(id(value))
        if entry is None:
            entry = self.entries[id(value)] = self.entry(value, limit)
        if isinstance(entry, str):
            self.failed.append({"name": name, "reason": entry})
        else:
            self.variables.append({"name": name, **entry})

    def entry(self, value: Any, limit: TimeLimit) -> dict[str, Any] | str:
        if len(self.variables) >= MAX_VARIABLES:
            return f"more than {MAX_VARIABLES} variables"
        if limit.passed():
            return NO_TIME
        try:
            if issubclass(type(value), types.ModuleType):
                return module_entry(value)
            return self.pickled(value, limit)
        except OutOfTime:
            return f"took too long: given up at the limit of {limit.seconds:g} s for all variables"
        except TooLarge as error:
            left = f", of which {in_words(self.max_bytes - self.bytes)} was left" if self.bytes else ""
            return f"at least {in_words(error.args[0])}: over the limit of {in_words(self.max_bytes)}{left}"

    def pickled(self, value: Any, limit: TimeLimit) -> dict[str, Any] | str:
        number = len(self.values) - 1
        path = self.generation / f"{number}.pickle"
        complete = False
        try:
            with path.open("wb") as file:
                sink = Sink(file, self.max_bytes - self.bytes, limit)
                pickler = NamespacePickler(sink, self.namespace, self.cells, self.known)
                failure = limit.run(lambda: attempt(lambda: pickler.dump(value)))
            if failure is not None:
                return failure
            complete = True
        finally:
            if not complete:
                path.unlink(missing_ok=True)
        self.bytes += sink.written
        # "in" may call the __eq__ of a metaclass
        if not any(type(value) is atom for atom in ATOMS) and value is not EMPTY:
            self.known.setdefault(id(value), number)
        return {"file": number, "code": pickler.has_code}


def user_names(namespace: Mapping[str, Any], skip: Collection[str]) -> list[str]:
    """The user's variables; also ``_helper``, which the user's functions may need, but nothing of IPython's."""
    names = [name for name in list(namespace) if type(name) is str and name not in skip]
    return [name for name in names if not name.startswith("__") and not OWN.fullmatch(name)]


def module_entry(module: types.ModuleType) -> dict[str, Any] | str:
    """How to import it, with those of its submodules that are loaded: code may use them as its attributes."""
    attributes = types.ModuleType.__dict__["__dict__"].__get__(module)
    name = attributes.get("__name__")
    if type(name) is not str or sys.modules.get(name) is not module:
        return f"the module {str(name)[:100]} can not be imported by its name"
    if attributes.get("__spec__") is None and name != "__main__":
        return f"the module {name[:100]} was made by hand"
    below = [other for other in list(sys.modules) if type(other) is str and other.startswith(name + ".")]
    return {"module": name, "submodules": [other for other in below if "._" not in other]}


# -- restoring ------------------------------------------------------------------------------------------------


def restore(namespace: dict[str, Any], directory: Path, *, seconds: float) -> dict[str, Any] | None:
    """Put the variables saved in ``directory`` into ``namespace``; what is there already stays.

    ``seconds`` are for all together. Gives ``restored`` (names), ``failed`` (``name`` and ``reason``; also those that
    could not be saved then), ``at`` (Unix time of the save) and ``reason`` (of the save), and None when nothing was
    saved there. When the save can not be read at all, the report has an ``error``. Raises only what interrupts
    (``KeyboardInterrupt``).
    """
    report: dict[str, Any] = {"restored": [], "failed": [], "at": None, "reason": ""}
    try:
        manifest = read_manifest(directory)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return report | {"error": describe_error(error)}
    report |= {"failed": list(manifest["failed"]), "at": manifest["at"], "reason": manifest["reason"]}
    with TimeLimit(seconds) as limit:
        restoring = Restoring(namespace, directory, manifest, limit)
        for variable in manifest["variables"]:
            name = variable["name"]
            if name in namespace:
                continue
            failure = restoring.put(name, variable)
            if failure is None:
                report["restored"].append(name)
            else:
                report["failed"].append({"name": name, "reason": failure})
    return report


class Restoring:
    """What one restore has read so far. The pickles refer to each other by number, always to earlier ones."""

    def __init__(
        self, namespace: dict[str, Any], directory: Path, manifest: Mapping[str, Any], limit: TimeLimit
    ) -> None:
        self.namespace = namespace
        self.generation = directory / manifest["generation"]
        self.same_python = manifest["python"] == sys.implementation.cache_tag
        self.python = manifest["python"]
        self.limit = limit
        self.names = {variable["file"]: variable for variable in reversed(manifest["variables"]) if "file" in variable}
        self.values: dict[int, Any] = {}
        self.failures: dict[int, str] = {}
        self.known: dict[Any, Any] = {"namespace": namespace, "cells": {}, **HELPERS}

    def put(self, name: str, variable: Mapping[str, Any]) -> str | None:
        """Restore one variable; why that failed, or None."""
        if self.limit.passed():
            return NO_TIME

        def work() -> None:
            self.namespace[name] = self.module(variable) if "module" in variable else self.load(variable["file"])

        try:
            return self.limit.run(lambda: attempt(work))
        except OutOfTime:
            # it may have come just after the work was done
            self.namespace.pop(name, None)
            return f"took too long: given up at the limit of {self.limit.seconds:g} s for all variables"

    def module(self, variable: Mapping[str, Any]) -> types.ModuleType:
        module = importlib.import_module(variable["module"])
        for name in variable["submodules"]:
            # one that can not be imported any more is missed where it is used, if at all
            if name not in sys.modules:
                attempt(functools.partial(importlib.import_module, name))
        return module

    def load(self, number: int) -> Any:
        """The object of one pickle. Raises whatever unpickling it raises, and ``LookupError`` if it did before."""
        if number in self.values:
            return self.values[number]
        variable = self.names[number]
        if number in self.failures:
            raise LookupError(f"needs {variable['name']}, which did not come back: {self.failures[number]}")
        self.failures[number] = "was being read"
        try:
            if variable["code"] and not self.same_python:
                raise pickle.UnpicklingError(f"has code of {self.python}, and this is {sys.implementation.cache_tag}")
            with (self.generation / f"{number}.pickle").open("rb") as file:
                value = Unpickler(Source(file, self.limit), self.find).load()
        except BaseException as error:
            self.failures[number] = type(error).__name__
            raise
        self.values[number] = value
        return value

    def find(self, reference: Any) -> Any:
        return self.load(reference) if type(reference) is int else self.known[reference]


# -- the directory --------------------------------------------------------------------------------------------


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of the save in ``directory``. Raises OSError, and ValueError if it is none."""
    manifest = json.loads((directory / MANIFEST).read_text(encoding="ascii"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{MANIFEST} is not of format {FORMAT}")
    kinds = {"python": str, "generation": str, "at": (int, float), "reason": str, "variables": list, "failed": list}
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            raise ValueError(f"{MANIFEST} has no valid {key!r}")
    if not SAVE.fullmatch(manifest["generation"]):
        raise ValueError(f"{MANIFEST} names no save")
    if not all(is_variable(variable) for variable in manifest["variables"]):
        raise ValueError(f"{MANIFEST} has a malformed variable")
    if not all(has_types(failure, {"name": str, "reason": str}) for failure in manifest["failed"]):
        raise ValueError(f"{MANIFEST} has a malformed failure")
    return manifest


def is_variable(variable: Any) -> bool:
    shapes = ({"name": str, "module": str, "submodules": list}, {"name": str, "file": int, "code": bool})
    return any(has_types(variable, shape) for shape in shapes)


def has_types(value: Any, types_of: Mapping[str, type]) -> bool:
    return isinstance(value, dict) and all(type(value.get(key)) is kind for key, kind in types_of.items())


def current_generation(directory: Path) -> str:
    try:
        return str(read_manifest(directory)["generation"])
    except (FileNotFoundError, ValueError, RecursionError):
        return ""


def remove_others(directory: Path, keep: str) -> None:
    """Remove every save but the one to keep, be it replaced or cut off."""
    for path in directory.iterdir():
        if SAVE.fullmatch(path.name) and path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


def replace_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    new = directory / f".{MANIFEST}.new"
    with new.open("w", encoding="ascii") as file:
        json.dump(manifest, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(directory / MANIFEST)


def in_words(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if size < 100 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
