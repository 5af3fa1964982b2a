"""Pickles one variable of a session, and reads it again in another kernel, within limits.

cloudpickle does most of it. What differs:

- a function of a cell comes back with the live namespace as its globals, not with a copy of those it uses;
- functions that share a variable of the function around them share it again, also when pickled one by one;
- a function of a cell that ``lru_cache`` decorates can be pickled, and an open file can not;
- what other pickles have already is referred to.
"""

from __future__ import annotations

import functools
import io
import pickle
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import cloudpickle

MAX_REASON = 300  # characters
ALARM_AGAIN = 0.25  # seconds until code that swallowed the alarm gets it again
FUNCTION = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__")
GENERIC = ("__type_params__",) if sys.version_info >= (3, 12) else ()
CACHED = type(functools.lru_cache(len))


# Not Exceptions, so that no handler in the code of the user's objects takes them for its own.
class OutOfTime(BaseException):
    """The time for saving or restoring is over."""


class TooLarge(BaseException):
    """What is being pickled goes over the limit; the argument is its size in bytes so far."""


class NotWritten(BaseException):
    """The disk failed; the argument is the OSError."""


class TimeLimit:
    """``seconds`` for everything that ``run`` is given, inside a ``with``. Only the main thread can be interrupted."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.armed = False
        self.alarms = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> TimeLimit:
        if self.alarms:
            self.began = time.monotonic()
            self.handler = signal.signal(signal.SIGALRM, self.alarm)
            left = max(self.deadline - time.monotonic(), 0.001)
            self.timer = signal.setitimer(signal.ITIMER_REAL, left, ALARM_AGAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if self.alarms:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL if self.handler is None else self.handler)
            left, interval = self.timer
            if left:
                signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - self.began), 0.001), interval)

    def alarm(self, *_: object) -> None:
        if self.armed:
            raise OutOfTime

    def passed(self) -> bool:
        return time.monotonic() >= self.deadline

    def check(self) -> None:
        if self.passed():
            raise OutOfTime

    def run(self, work: Callable[[], Any]) -> Any:
        """Do the work. Raises ``OutOfTime`` when it overruns, and whatever the work raises."""
        # twice, for the alarm may come as the inner one ends; the next is too far off to come in the outer one
        try:
            try:
                self.armed = True
                return work()
            finally:
                self.armed = False
        finally:
            self.armed = False


class Sink:
    """The file that a pickler writes to. Raises ``OutOfTime``, ``TooLarge`` or ``NotWritten``, and no other."""

    def __init__(self, file: io.BufferedWriter, room: int, limit: TimeLimit) -> None:
        self.file = file
        self.room = room
        self.limit = limit
        self.written = 0

    def write(self, data: Any) -> int:
        self.limit.check()
        view = pickle.PickleBuffer(data).raw()
        if self.written + view.nbytes > self.room:
            raise TooLarge(self.written + view.nbytes)
        try:
            self.file.write(view)
        except OSError as error:
            raise NotWritten(error) from error
        self.written += view.nbytes
        return view.nbytes


class Source:
    """The file that an unpickler reads from. Raises ``OutOfTime``."""

    def __init__(self, file: io.BufferedReader, limit: TimeLimit) -> None:
        self.file = file
        self.limit = limit

    def read(self, size: int = -1) -> bytes:
        self.limit.check()
        return self.file.read(size)

    def readinto(self, buffer: Any) -> int:
        self.limit.check()
        return self.file.readinto(buffer)

    def readline(self) -> bytes:
        self.limit.check()
        return self.file.readline()


def attempt(work: Callable[[], object]) -> str | None:
    """Why the work failed, or None. Raises KeyboardInterrupt, and what a limit raises."""
    try:
        work()
    except (KeyboardInterrupt, OutOfTime, TooLarge, NotWritten):
        raise
    except BaseException as error:  # the user's objects may raise anything, also SystemExit; the report has it
        return describe_error(error)
    return None


def describe_error(error: BaseException) -> str:
    """An exception's type and text, whatever its ``__str__`` does."""
    try:
        return f"{type(error).__name__}: {error}"[:MAX_REASON]
    except Exception:
        return f"{type(error).__name__}: (its text could not be had)"


# -- what pickles are made of, besides what cloudpickle makes of things ---------------------------------------


def new_function(namespace: dict[str, Any], code: types.CodeType, closure: Any) -> types.FunctionType:
    return types.FunctionType(code, namespace, None, None, closure)


def set_function(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    attributes, slots = state
    function.__dict__.update(attributes)
    for name, value in slots.items():
        setattr(function, name, value)


def new_cell(cells: dict[int, Any], number: int) -> types.CellType:
    # functions in several variables may share it
    return cells.setdefault(number, types.CellType())


def set_cell(cell: types.CellType, contents: tuple[Any]) -> None:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        cell.cell_contents = contents[0]


def new_cached(function: types.FunctionType, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


# Referred to by name, and not as attributes of a module, which need not be importable in a kernel.
HELPERS = {helper.__name__: helper for helper in (new_function, set_function, new_cell, set_cell, new_cached)}


class NamespacePickler(cloudpickle.Pickler):
    """Pickles what belongs to ``namespace``; ``known`` has, by ``id``, what is referred to and not pickled."""

    def __init__(self, sink: Sink, namespace: dict[str, Any], cells: dict[int, Any], known: dict[int, Any]) -> None:
        super().__init__(sink, protocol=5)
        self.namespace = namespace
        self.cells = cells
        self.known = known
        self.has_code = False

    def persistent_id(self, value: Any) -> Any:
        # called for every object there is: with it, unlike without, an alarm also interrupts a list of numbers
        return self.known.get(id(value))

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind is types.FunctionType and value.__globals__ is self.namespace:
            slots = {name: getattr(value, name) for name in FUNCTION + GENERIC}
            made_of = (self.namespace, value.__code__, value.__closure__)
            return new_function, made_of, (value.__dict__, slots), None, None, set_function
        if kind is types.CellType:
            number, _ = self.cells.setdefault(id(value), (len(self.cells), value))
            try:
                contents = (value.cell_contents,)
            except ValueError:
                return new_cell, (self.cells, number)
            # its contents may lead back to it, so they come after it
            return new_cell, (self.cells, number), contents, None, None, set_cell
        if kind is CACHED and getattr(value.__dict__.get("__wrapped__"), "__globals__", None) is self.namespace:
            return new_cached, (value.__wrapped__, value.cache_parameters()), value.__dict__
        if kind is types.CodeType:
            self.has_code = True
        elif issubclass(kind, io.TextIOWrapper):
            raise pickle.PicklingError("an open file")  # cloudpickle would store all that the file has
        return super().reducer_override(value)


class Unpickler(pickle.Unpickler):
    """Gives each reference that ``NamespacePickler`` left to ``find``."""

    def __init__(self, source: Source, find: Callable[[Any], Any]) -> None:
        super().__init__(source)
        self.find = find

    def persistent_load(self, reference: Any) -> Any:
        return self.find(reference)
