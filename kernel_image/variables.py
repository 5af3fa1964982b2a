"""Tells which variables a session has, without running the user's code for long.

``describe`` may be called beside a running cell, from another thread. What it says of a value is decided by the
value's real type alone. Only the ``__repr__`` of other types than Python's own, and what data libraries tell of their
objects, are asked, each in a thread that is given up when it takes too long.

``save`` and ``restore`` keep the variables on disk; see ``saved_variables``.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import time
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kernel_image.saved_variables import restore, save

__all__ = ["describe", "restore", "save"]

REPR_SECONDS = 0.2  # for what one object tells of itself
MAX_STUCK = 4  # threads that were given up and still run; with so many, no further object is asked
ITEMS = 6  # of a container that are shown
DEPTH = 3
INT_BITS = 256  # an int of more is not shown in digits
SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
EXACT = (*SIZED, type(None), bool, int, float, complex, range)
BRACKETS = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}"}
DATA = (
    ("numpy", "ndarray"),
    ("pandas", "DataFrame"),
    ("pandas", "Series"),
    ("polars", "DataFrame"),
    ("polars", "Series"),
    ("torch", "Tensor"),
)

stuck: list[threading.Thread] = []


def describe(
    namespace: Mapping[str, Any],
    *,
    skip: Collection[str],
    seconds: float = 1.0,
    limit: int = 500,
    repr_chars: int = 80,
) -> list[dict[str, Any]]:
    """The first ``limit`` variables: those not in ``skip`` whose name does not start with ``_``.

    Each has ``name``, ``type``, ``size`` (bytes, or None), ``shape`` (a list of int, or None) and ``repr``: one line of
    at most ``repr_chars`` characters. ``seconds`` are for what all objects tell of themselves; there is no more than
    that of waiting, and what was not told in time is missing. Raises nothing that the user's code raises.
    """
    deadline = time.monotonic() + seconds
    shown = [item for item in snapshot(namespace) if type(item[0]) is str and item[0] not in skip]
    shown = [(name, value) for name, value in shown if not name.startswith("_")][:limit]
    return [{"name": name, **describe_value(value, deadline, repr_chars)} for name, value in shown]


def snapshot(namespace: Mapping[str, Any]) -> list[tuple[str, Any]]:
    while True:
        try:
            return list(namespace.items())
        except RuntimeError:
            time.sleep(0)  # it changed meanwhile


def describe_value(value: Any, deadline: float, chars: int) -> dict[str, Any]:
    kind = type(value)
    size = sys.getsizeof(value) if has(EXACT, kind) else None
    shape = [len(value)] if has(SIZED, kind) else None
    text = known_text(value, chars)
    if text is None:
        asked = ask(lambda: told(value, chars), deadline)
        size, shape, text = (None, None, f"<{class_name(kind)}: {asked}>") if isinstance(asked, str) else asked
    return {"type": type_name(kind), "size": size, "shape": shape, "repr": one_line(text, chars)}


# -- what needs no code of the object -------------------------------------------------------------------------


def known_text(value: Any, chars: int) -> str | None:
    """The text of what runs no code of the user's, else None."""
    kind = type(value)
    if has(EXACT, kind):
        return short(value, chars)
    if kind is types.FunctionType:
        return f"{value.__name__}({signature(value, 0)})"
    if kind is types.BuiltinFunctionType:
        return f"{value.__name__}(...)"
    bases = mro(kind)
    if has(bases, types.ModuleType):
        name = types.ModuleType.__dict__["__dict__"].__get__(value).get("__name__")
        return f"module {name}" if type(name) is str else "module"
    if has(bases, type):
        for base in mro(value):
            method = type.__dict__["__dict__"].__get__(base).get("__init__")
            if method is not None:
                break
        arguments = f"({signature(method, 1)})" if type(method) is types.FunctionType else ""
        return f"class {class_name(value)}{arguments}"
    return None


def short(value: Any, chars: int, depth: int = DEPTH) -> str:
    """A text for a value of Python's own types; what else it has in it is shown as ``<Class>``.

    ``reprlib`` would do, but it sorts the keys of a dict, and that runs the code of the keys.
    """
    kind = type(value)
    if not has(EXACT, kind):
        return f"<{class_name(kind)}>"
    if kind is int:
        return repr(value) if value.bit_length() <= INT_BITS else f"<int of {value.bit_length()} bits>"
    if kind is range:
        return f"range({', '.join(short(part, chars) for part in (value.start, value.stop, value.step))})"
    if kind in (str, bytes, bytearray):
        return repr(value[:chars]) + ("…" if len(value) > chars else "")
    if kind not in BRACKETS:
        return repr(value)
    opening, closing = BRACKETS[kind]
    if depth == 0:
        return f"{opening}…{closing}"
    try:
        items = list(itertools.islice(value.items() if kind is dict else value, ITEMS))
    except RuntimeError:
        return f"{opening}…{closing}"  # it is being changed
    if kind is dict:
        parts = [f"{short(key, chars, depth - 1)}: {short(item, chars, depth - 1)}" for key, item in items]
    else:
        parts = [short(item, chars, depth - 1) for item in items]
    more = ["…"] if len(value) > len(items) else []
    text = ", ".join(parts + more) + ("," if kind is tuple and len(value) == 1 else "")
    if kind is frozenset or (kind is set and not parts):
        return f"{kind.__name__}({opening + text + closing if parts else ''})"
    return opening + text + closing


def signature(function: types.FunctionType, drop: int) -> str:
    """The parameters, without the first ``drop``; defaults are shown as ``short`` shows them."""
    code = function.__code__
    positional = list(code.co_varnames[: code.co_argcount])
    keyword = list(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])
    rest = list(code.co_varnames[code.co_argcount + code.co_kwonlyargcount :])
    defaults = function.__defaults__ or ()
    given = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    if type(function.__kwdefaults__) is dict:
        given |= function.__kwdefaults__
    parts = [f"{name}={short(given[name], 20, 1)}" if name in given else name for name in positional]
    if code.co_posonlyargcount:
        parts.insert(code.co_posonlyargcount, "/")
    parts = parts[drop:]
    if code.co_flags & 0x04:  # *args
        parts.append("*" + rest.pop(0))
    elif keyword:
        parts.append("*")
    parts += [f"{name}={short(given[name], 20, 1)}" if name in given else name for name in keyword]
    if code.co_flags & 0x08:  # **kwargs
        parts.append("**" + rest.pop(0))
    return ", ".join(parts)


# Attributes of a class can be the user's code, in its metaclass; these are what the interpreter itself has.


def mro(kind: type) -> tuple[type, ...]:
    return type.__dict__["__mro__"].__get__(kind)


def has(kinds: tuple[type, ...], kind: object) -> bool:
    return any(other is kind for other in kinds)  # "in" may call the __eq__ of a metaclass


def class_name(kind: type) -> str:
    return type.__dict__["__name__"].__get__(kind)


def type_name(kind: type) -> str:
    module = type.__dict__["__module__"].__get__(kind)
    if type(module) is not str or module in ("builtins", "__main__"):
        return class_name(kind)
    return f"{module.partition('.')[0]}.{class_name(kind)}"


def one_line(text: str, chars: int) -> str:
    # also what a terminal would obey, and half a surrogate pair, are not printable
    line = "".join(character if character.isprintable() else " " for character in text[: chars + 1])
    return line if len(line) <= chars else line[: chars - 1] + "…"


# -- what an object tells of itself, in a thread of its own ---------------------------------------------------


def ask(work: Callable[[], Any], deadline: float) -> Any:
    """What the work gives, or a ``str`` that says why nothing: it raised, or took too long."""
    stuck[:] = [thread for thread in stuck if thread.is_alive()]
    left = min(REPR_SECONDS, deadline - time.monotonic())
    if left <= 0 or len(stuck) >= MAX_STUCK:
        return "no time left for its repr"
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # also what ends it below
            results.append(f"repr failed: {class_name(type(error))}")

    thread = threading.Thread(target=run, name="describe", daemon=True)
    thread.start()
    thread.join(left)
    if results:
        return results[0]
    # a thread ends silently by SystemExit, wherever it comes; code that sleeps outside of Python gets it late
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
    stuck.append(thread)
    return "repr took too long"


def told(value: Any, chars: int) -> tuple[int | None, list[int] | None, str]:
    """Size, shape and text of an object. Raises whatever the object's code raises."""
    bases = mro(type(value))
    for package, name in DATA:
        # whoever calls a class DataFrame is not pandas for that; nor is anything that is called pandas
        module = sys.modules.get(package)
        if type(module) is types.ModuleType and has(bases, module.__dict__.get(name)):
            return told_of_data(value, package, class_name(type(value)), chars)
    text = repr(value)
    # the class of the text may be the user's, with other ideas of slicing
    text = str.__getitem__(text, slice(8 * chars))
    return None, None, " ".join(text.split())


def told_of_data(value: Any, package: str, name: str, chars: int) -> tuple[int | None, list[int] | None, str]:
    shape = [int(length) for length in value.shape]
    size = None
    if package == "numpy":
        size = int(value.nbytes)
    elif package == "pandas":
        used = value.memory_usage(deep=False)
        size = int(used.sum() if len(shape) == 2 else used)
    if package in ("pandas", "polars") and len(shape) == 2:
        labels = [short(label, chars) if type(label) is not str else label for label in value.columns[:ITEMS]]
        more = ", …" if shape[1] > ITEMS else ""
        return size, shape, f"{name} {shape[0]} rows x {shape[1]} columns: {', '.join(labels)}{more}"
    text = f"{name} {' x '.join(map(str, shape)) or 'scalar'} {value.dtype}"
    if package == "numpy" and value.dtype.kind in "biufc":
        text += f": {', '.join(map(repr, value.flat[:ITEMS].tolist()))}{', …' if value.size > ITEMS else ''}"
    return size, shape, text
