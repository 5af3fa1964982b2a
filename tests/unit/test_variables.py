"""A session's variables: described beside a running cell, saved by one process and restored by another."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

import session_manager
from kernel_image import saved_variables, variables

ROOT = Path(session_manager.__file__).parents[1]

KERNEL = """
import json, sys, types
from pathlib import Path

sys.path.insert(0, sys.argv.pop(1))
from kernel_image.variables import restore, save

# where the code comes from must not matter: nothing that is saved names it
for name in [name for name in sys.modules if name.startswith("kernel_image")]:
    del sys.modules[name]
del sys.path[0]

directory = Path(sys.argv[1])
user = sys.modules["__main__"] = types.ModuleType("__main__")
namespace = user.__dict__
options = json.loads(sys.argv[2])

def run(code):
    exec(compile(code, "<cell>", "exec"), namespace)
"""
"""A kernel as far as this needs one: cells run in the namespace of a ``__main__`` of their own."""

SAVE = """
run(sys.stdin.read())
print(json.dumps(save(namespace, directory, **({"skip": ["In"], "seconds": 20, "max_bytes": 1 << 20} | options))))
"""

RESTORE = """
print(json.dumps(restore(namespace, directory, **({"seconds": 20} | options))))
run(sys.stdin.read())
"""


def kernel(then: str, directory: Path, code: str, **options: Any) -> Any:
    command = [sys.executable, "-c", KERNEL + then, str(ROOT), str(directory), json.dumps(options)]
    done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=60, cwd=directory.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[0])


SAVE_ALL = """
reports = {}
for case, (cell, _) in json.loads(sys.stdin.read()).items():
    user = sys.modules["__main__"] = types.ModuleType("__main__")
    namespace = user.__dict__
    run(cell)
    reports[case] = save(namespace, directory / case, skip=[], seconds=20, max_bytes=1 << 20, reason="idle")
print(json.dumps(reports))
"""

RESTORE_ALL = """
import traceback
reports = {}
for case, (_, check) in json.loads(sys.stdin.read()).items():
    user = sys.modules["__main__"] = types.ModuleType("__main__")
    namespace = user.__dict__
    reports[case] = restore(namespace, directory / case, seconds=20)
    try:
        run(check)
    except Exception:
        reports[case]["error"] = traceback.format_exc()
print(json.dumps(reports))
"""


def save(directory: Path, code: str, **options: Any) -> Any:
    return kernel(SAVE, directory, code, **options)


def restore(directory: Path, code: str = "", **options: Any) -> Any:
    return kernel(RESTORE, directory, code, **options)


def reasons(report: Any) -> dict[str, str]:
    return {failure["name"]: failure["reason"] for failure in report["failed"]}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "variables"


# -- what comes back ------------------------------------------------------------------------------------------


CELLS = {
    "globals": ("x = 5\ndef f(): return x", "x = 6\nassert f() == 6 and f.__globals__ is globals()"),
    "recursion": ("def f(n): return n < 2 or n * f(n - 1)", "assert f(5) == 120"),
    "calls": (
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n > 0 and even(n - 1)",
        "assert even(4) and odd(5)\ndef odd(n): return 'new'\nassert even(1) == 'new'",
    ),
    "helper": ("def _half(n): return n / 2\ndef f(n): return _half(n)", "assert f(4) == 2"),
    "closure": (
        "def make(k):\n def add(n): return n + k\n return add\nadd = make(3)",
        "assert add(1) == 4 and make(4)(1) == 5",
    ),
    "cyclic closure": (
        "def make():\n def f(n): return 1 if n < 2 else n * f(n - 1)\n return f\nf = make()",
        "assert f(5) == 120",
    ),
    "shared closure": (
        "def make():\n n = 0\n def up():\n  nonlocal n\n  n += 1\n def get(): return n\n return up, get\n"
        "up, get = make()\nup()",
        "assert get() == 1\nup()\nassert get() == 2",
    ),
    "decorator": (
        "import functools\nk = 2\n"
        "def double(f):\n @functools.wraps(f)\n def g(*a): return k * f(*a)\n return g\n"
        "@double\ndef f(n):\n 'it adds'\n return n + 1",
        "k = 3\nassert f(1) == 6 and f.__doc__ == 'it adds' and f.__wrapped__(1) == 2",
    ),
    "cached": (
        "import functools\n@functools.lru_cache(maxsize=9)\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
        "assert fib(80) == 23416728348467685 and fib.cache_parameters()['maxsize'] == 9",
    ),
    "attributes": (
        "def f(a, b=[1], *, c: int = 2) -> str: return a, b, c\nf.note = 'n'",
        "import inspect\nassert f(0) == (0, [1], 2) and f.note == 'n'\n"
        "assert f.__module__ == '__main__' and str(inspect.signature(f)).startswith('(a, b=[1], *, c:')",
    ),
    "dataclass": (
        "import dataclasses\n@dataclasses.dataclass(order=True)\nclass D:\n a: int\n"
        " b: list = dataclasses.field(default_factory=list)\nd = D(1)",
        "assert d == D(1) and d < D(2) and isinstance(d, D) and dataclasses.asdict(d) == {'a': 1, 'b': []}",
    ),
    "class": (
        "k = 1\nclass A:\n n = 10\n def f(self): return self.n + k\n @classmethod\n def make(cls): return cls()\n"
        " @staticmethod\n def s(): return k\n @property\n def p(self): return self.f()\n"
        "class B(A):\n __slots__ = ('own',)\n def f(self): return super().f() * 2\nb = B()\nb.own = 'own'",
        "k = 2\nassert isinstance(b, B) and type(b) is B and B.__mro__[1] is A and b.own == 'own'\n"
        "assert (b.p, A().p, B.make().f(), A.s()) == (24, 12, 24, 2)",
    ),
    "instance before its class": (
        "c = None\nclass C:\n def f(self): return k\nc = C()\nk = 1",
        "k = 2\nassert type(c) is C and c.f() == 2",
    ),
    "instance of a class defined anew": (
        "class C:\n v = 1\nold = C()\nclass C:\n v = 2\nnew = C()",
        "assert old.v == 1 and new.v == 2 and type(new) is C and type(old) is not C",
    ),
    "abstract": (
        "import abc\nclass A(abc.ABC):\n @abc.abstractmethod\n def f(self): ...\nclass B(A):\n def f(self): return 1\n"
        "A.register(int)",
        "assert B().f() == 1 and isinstance(1, A)\ntry: A()\nexcept TypeError: pass\nelse: raise AssertionError",
    ),
    "enum": (
        "import enum\nclass E(enum.Enum):\n R = 1\n G = 2\n def f(self): return k\n"
        "k = 3\nred = E.R\nboth = {E.R: 1, E.G: 2}",
        "assert red is E.R and E(2) is E.G and both[red] == 1 and red.f() == 3",
    ),
    "namedtuple": (
        "import collections, typing\nP = collections.namedtuple('P', 'a b')\np = P(1, 2)\n"
        "class Q(typing.NamedTuple):\n a: int = 3\nq = Q()",
        "assert isinstance(p, P) and p.b == 2 and isinstance(q, Q) and q.a == 3 and P(1, 2) == p",
    ),
    "lambda in a dict": ("x = 1\nd = {'f': lambda n: n + x}", "x = 2\nassert d['f'](1) == 3"),
    "metaclass": (
        "class Meta(type):\n def __eq__(self, other): raise RuntimeError\n __hash__ = type.__hash__\n"
        "class C(metaclass=Meta):\n v = 1\nc = C()",
        "assert type(c) is C and type(C) is Meta and c.v == 1",
    ),
    "exception": (
        "class Bad(ValueError):\n pass\nerror = Bad('text')",
        "assert isinstance(error, Bad) and error.args == ('text',)",
    ),
    "one object": (
        "a = []\nb = a\nheld = {'a': a, 'f': print}\ndef f(): pass\nhandlers = [f]",
        "assert b is a and held['a'] is a and handlers[0] is f",
    ),
    "cyclic object": ("a = []\na.append(a)\nt = ([],)\nt[0].append(t)", "assert a[0] is a and t[0][0] is t"),
    "namespace": ("g = globals()\nheld = [g]", "assert g is globals() and held[0] is g"),
    "modules": (
        "import json as j, os.path as p\nimport xml.etree.ElementTree\nfrom math import sqrt",
        "assert j.dumps(1) == '1' and p.join('a', 'b') == 'a/b' and sqrt(4) == 2 and xml.etree.ElementTree.Element",
    ),
    "buffers": (
        "import array\na = array.array('d', [1.5] * 50000)\nb = bytearray(200000)\nc = b'c' * 200000",
        "assert a[-1] == 1.5 and len(b) == 200000 and c == b'c' * 200000",
    ),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Of saving all the cells' variables in one process, and of restoring them in another."""
    directory = tmp_path_factory.mktemp("cells") / "variables"
    cells = json.dumps(CELLS)
    return kernel(SAVE_ALL, directory, cells), kernel(RESTORE_ALL, directory, cells)


@pytest.mark.parametrize("case", CELLS)
def test_comes_back(reports: tuple[Any, Any], case: str) -> None:
    saved, restored = reports[0][case], reports[1][case]
    assert saved["failed"] == []
    assert "error" not in restored, restored["error"]
    assert restored == {"restored": saved["saved"], "failed": [], "at": saved["at"], "reason": "idle"}


def test_names_keep_their_order_and_those_of_ipython_are_left_out(directory: Path) -> None:
    cell = "z = 1\nIn = Out = _ = __ = ___ = _i = _ii = _iii = _i12 = _7 = _ih = _oh = _dh = __own = 0\na = 2\nz = 3"
    assert save(directory, cell, skip=["In", "Out"])["saved"] == ["z", "a"]
    assert restore(directory, "assert [name for name in globals() if name in 'za'] == ['z', 'a'] and z == 3")[
        "restored"
    ] == ["z", "a"]


def test_a_name_that_is_there_stays(directory: Path) -> None:
    save(directory, "a = []\nb = a\nc = 3")
    then = "namespace['a'] = 'here'\n" + RESTORE
    restored = kernel(then, directory, "assert a == 'here' and b == [] and c == 3")
    assert (restored["restored"], restored["failed"]) == (["b", "c"], [])


def test_nothing_saved_is_told_from_a_save_of_nothing(directory: Path) -> None:
    assert restore(directory) is None
    assert save(directory, "")["saved"] == []
    assert restore(directory)["restored"] == []


def test_what_was_restored_can_be_saved_again(directory: Path) -> None:
    save(
        directory, "x = 1\ndef make():\n n = [0]\n def f(): return x, n\n return f\nf = make()\nclass C: pass\nc = C()"
    )
    again = RESTORE.replace("run(", "if True: save(namespace, directory, skip=[], seconds=9, max_bytes=9**9)\nrun(")
    kernel(again, directory, "")
    assert restore(directory, "x = 2\nassert f() == (2, [0]) and type(c) is C")["failed"] == []


# -- what does not --------------------------------------------------------------------------------------------


def test_what_can_not_be_saved_has_a_reason_then_and_again_later(directory: Path) -> None:
    cell = """
import socket, threading, types
generator = (n for n in range(3))
lock = threading.Lock()
thread = threading.Thread()
sock = socket.socket()
file = open(__import__("os").devnull)
binary = open(__import__("os").devnull, "rb")
made = types.ModuleType("made")
class Raises:
    def __init__(self, error): self.error = error
    def __reduce__(self): raise self.error
class Mute(Exception):
    def __str__(self): raise RuntimeError
exits = Raises(SystemExit(3))
mute = Raises(Mute())
wordy = Raises(ValueError("w" * 5000))
deep = []
for _ in range(100000): deep = [deep]
same = generator
fine = 1
"""
    finish = "\nsock.close(); file.close(); binary.close()\nwhile deep: deep = deep.pop()"
    saved = kernel(SAVE + f"run({finish!r})", directory, cell)
    why = reasons(saved)
    assert "TypeError: cannot pickle 'generator' object" == why.pop("generator") == why.pop("same")
    assert why.pop("file") == "PicklingError: an open file"
    assert "made" in why.pop("made")
    assert why.pop("exits") == "SystemExit: 3"
    assert why.pop("mute") == "Mute: (its text could not be had)"
    wordy = why.pop("wordy")
    assert wordy.startswith("ValueError: www") and len(wordy) == 300
    assert "recursion" in why.pop("deep")
    assert set(why) == {"lock", "thread", "sock", "binary"}
    assert saved["saved"] == ["socket", "threading", "types", "Raises", "Mute", "fine"]
    restored = restore(directory, "assert fine == 1")
    assert restored["restored"] == saved["saved"]
    assert restored["failed"] == saved["failed"]
    assert len(list(directory.glob("*/*"))) == 3  # nothing of what failed is left


def test_too_much_is_left_out_and_what_fits_is_not(directory: Path) -> None:
    saved = save(directory, "a = 'a' * 60000\nb = 'b' * 60000\nc = 'c' * 20000", max_bytes=100_000)
    assert saved["saved"] == ["a", "c"]
    assert reasons(saved) == {"b": "at least 58.6 KiB: over the limit of 97.7 KiB, of which 39 KiB was left"}
    assert saved["bytes"] == sum(file.stat().st_size for file in directory.glob("*/*")) < 100_000
    assert restore(directory, "assert len(c) == 20000")["failed"] == saved["failed"]


@pytest.mark.parametrize(
    "slow",
    [
        "time.sleep(50)",
        "while True: pass",
        "while True:\n   try: time.sleep(50)\n   except Exception: pass",
        "while True:\n   try: time.sleep(50)\n   except BaseException: break\n  time.sleep(50)",
    ],
)
def test_what_takes_too_long_to_save_is_given_up(directory: Path, slow: str) -> None:
    cell = f"import time\nfirst = 1\nclass Slow:\n def __reduce__(self):\n  {slow}\nslow = Slow()\nlast = 2"
    began = time.monotonic()
    saved = save(directory, cell, seconds=0.5)
    assert time.monotonic() - began < 20
    assert saved["saved"] == ["time", "first", "Slow"]
    assert reasons(saved) == {
        "slow": "took too long: given up at the limit of 0.5 s for all variables",
        "last": "no time left",
    }


def test_a_huge_variable_is_given_up_in_time(directory: Path) -> None:
    cell = "row = list(range(1000))\nhuge = [[*row] for _ in range(3000)]"
    saved = save(directory, cell, seconds=0.2, max_bytes=1 << 40)
    assert list(reasons(saved)) == ["huge"]


def test_a_thread_that_saves_keeps_to_the_time_as_well(directory: Path) -> None:
    then = SAVE.replace("print(", "import threading\nthread = threading.Thread(target=lambda: print(").replace(
        "options))))", "options)))))\nthread.start(); thread.join()"
    )
    cell = "few = 1\nhuge = [[n] * 1000 for n in range(3000)]"
    saved = kernel(then, directory, cell, seconds=0.2, max_bytes=1 << 40)
    assert (saved["saved"], list(reasons(saved))) == (["few"], ["huge"])


def test_an_interrupt_ends_it_and_the_alarm_is_as_it_was(directory: Path) -> None:
    then = """
import signal, time
rung = []
signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.4)
options |= {"skip": [], "seconds": 9, "max_bytes": 1 << 20}
run("a = 1")
save(namespace, directory, **options)
run("class C:\\n def __reduce__(self): raise KeyboardInterrupt\\nc = C()")
try:
    save(namespace, directory, **options)
except KeyboardInterrupt:
    print(json.dumps([path.name for path in directory.glob("*/*")]))
until = time.monotonic() + 9
while not rung and time.monotonic() < until:
    time.sleep(0.01)
assert rung == [1]
"""
    assert kernel(then, directory, "") == ["0.pickle"]
    assert restore(directory)["restored"] == ["a"]


def test_what_fails_to_come_back_fails_alone(directory: Path) -> None:
    cell = """
import time
class Hostile:
    def __init__(self, error): self.error = error
    def __setstate__(self, state): raise state["error"]
bad = Hostile(ValueError("no"))
exits = Hostile(SystemExit())
needs = [bad]
cut = "c" * 5000
gone = "gone"
flipped = {"a": [1, 2, 3]}
fine = 1
class Slow:
    def __setstate__(self, state): time.sleep(50)
slow = Slow()
slow.n = 1
last = 2
"""
    save(directory, cell)
    (generation,) = directory.glob("????????????????")
    numbers = {
        entry["name"]: entry.get("file") for entry in json.loads((directory / "manifest.json").read_text())["variables"]
    }
    cut = generation / f"{numbers['cut']}.pickle"
    cut.write_bytes(cut.read_bytes()[:2000])
    (generation / f"{numbers['gone']}.pickle").unlink()
    (generation / f"{numbers['flipped']}.pickle").write_bytes(b"\x80\x05\xff garbage")
    began = time.monotonic()
    restored = restore(directory, "assert fine == 1 and 'cut' not in globals()", seconds=1)
    assert time.monotonic() - began < 20
    assert restored["restored"] == ["time", "Hostile", "fine", "Slow"]
    why = reasons(restored)
    assert why.pop("bad") == "ValueError: no"
    assert why.pop("exits") == "SystemExit: "
    assert why.pop("needs") == "LookupError: needs bad, which did not come back: ValueError"
    assert why.pop("cut").startswith("UnpicklingError: ")
    assert why.pop("gone").startswith("FileNotFoundError: ")
    assert why.pop("flipped").startswith("UnpicklingError: ")
    assert why.pop("slow").startswith("took too long")
    assert why == {"last": "no time left"}


def test_code_of_another_python_is_not_run(directory: Path) -> None:
    save(directory, "data = [1]\ndef f(): pass\nheld = [f]")
    manifest = json.loads((directory / "manifest.json").read_text())
    (directory / "manifest.json").write_text(json.dumps(manifest | {"python": "cpython-310"}))
    restored = restore(directory, "assert data == [1]")
    assert restored["restored"] == ["data"]
    assert "has code of cpython-310" in reasons(restored)["f"]
    assert "needs f" in reasons(restored)["held"]


def test_a_module_that_is_not_there_any_more_fails_alone(directory: Path) -> None:
    mine = directory.parent / "mine.py"
    mine.write_text("class C: pass\n")
    cell = "import sys\nsys.path.insert(0, '')\nimport mine\nc = mine.C()\nfine = 1"
    assert save(directory, cell)["failed"] == []
    mine.unlink()
    assert set(reasons(restore(directory, "assert fine == 1"))) == {"mine", "c"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"format": 2}',
        '{"format": 1, "python": "x", "generation": "../x", "at": 1}',
        "\xff",
    ],
)
def test_a_malformed_manifest_is_an_error_and_the_next_save_replaces_it(directory: Path, text: str) -> None:
    options = {"skip": (), "seconds": 20, "max_bytes": 1000}
    saved_variables.save({"a": 1}, directory, **options)
    (directory / "manifest.json").write_bytes(text.encode("latin-1"))
    restored = saved_variables.restore({}, directory, seconds=20)
    assert restored["restored"] == [] and "error" in restored
    assert saved_variables.save({"b": 1}, directory, **options)["saved"] == ["b"]
    assert saved_variables.restore({}, directory, seconds=20)["restored"] == ["b"]
    assert len(list(directory.iterdir())) == 2


FULL = """
import errno, io
from pathlib import Path

class Full(io.FileIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

before = Path.open
def open(path, mode="r", **options):
    return io.BufferedWriter(Full(path, "w")) if mode == "wb" else before(path, mode, **options)
Path.open = open
"""


@pytest.mark.parametrize("length", [10, 100_000])
def test_a_full_disk_leaves_the_save_before(directory: Path, length: int) -> None:
    save(directory, "a = 1", reason="first")
    saved = kernel(FULL + SAVE, directory, f"b = 'b' * {length}\nc = [b]")
    assert saved["error"] == "OSError: [Errno 28] No space left on device"
    assert (saved["saved"], saved["failed"], saved["bytes"]) == ([], [], 0)
    assert restore(directory, "assert a == 1")["reason"] == "first"
    assert len(list(directory.iterdir())) == 2


def test_a_place_that_is_no_directory_is_an_error(directory: Path) -> None:
    directory.write_text("a file")
    assert save(directory, "a = 1")["error"].startswith("FileExistsError")
    assert "error" in restore(directory)


def test_killed_at_any_moment_it_leaves_one_whole_save(directory: Path) -> None:
    then = """
print("ready", flush=True)
for number in range(10**6):
    namespace.update({f"v{n}": number for n in range(20)})
    save(namespace, directory, skip=[], seconds=9, max_bytes=1 << 20)
"""
    command = [sys.executable, "-c", KERNEL + then, str(ROOT), str(directory), "{}"]
    spread = random.Random()  # noqa: S311
    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            until = time.monotonic() + 20
            while not (directory / "manifest.json").exists() and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(spread.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        namespace: dict[str, Any] = {}
        restored = saved_variables.restore(namespace, directory, seconds=20)
        assert restored["failed"] == [] and "error" not in restored
        assert len(restored["restored"]) == 20 and len(set(namespace.values())) == 1
    saved_variables.save({"a": 1}, directory, skip=[], seconds=20, max_bytes=1000)
    assert len(list(directory.iterdir())) == 2


# -- what there is --------------------------------------------------------------------------------------------


def described(value: Any, **options: Any) -> Any:
    (entry,) = variables.describe({"v": value}, skip=(), **options)
    json.dumps(entry)
    assert entry.pop("name") == "v"
    return entry


def text(value: Any, **options: Any) -> str:
    found = described(value, **options)["repr"]
    assert isinstance(found, str)
    return found


class Own:
    def __repr__(self) -> str:
        return "first\n   second\x1b[31m"


def function(a: int, /, b: Any = [1], *args: Any, c: Any = Own(), **more: Any) -> None:  # noqa: B006, B008
    pass


DESCRIBED = [
    (None, "NoneType", None, "None"),
    (True, "bool", None, "True"),
    (-12, "int", None, "-12"),
    (1 << 100_000, "int", None, "<int of 100001 bits>"),
    (1.5, "float", None, "1.5"),
    (2j, "complex", None, "2j"),
    ("a\nb", "str", [3], "'a\\nb'"),
    (b"ab", "bytes", [2], "b'ab'"),
    (bytearray(b"ab"), "bytearray", [2], "bytearray(b'ab')"),
    (range(1 << 100_000), "range", None, "range(0, <int of 100001 bits>, 1)"),
    ([1, "a", [2, [3, [4]]]], "list", [3], "[1, 'a', [2, [3, […]]]]"),
    (list(range(9)), "list", [9], "[0, 1, 2, 3, 4, 5, …]"),
    ((1,), "tuple", [1], "(1,)"),
    ((), "tuple", [0], "()"),
    ({1}, "set", [1], "{1}"),
    (set(), "set", [0], "set()"),
    (frozenset({1}), "frozenset", [1], "frozenset({1})"),
    ({"a": Own(), 2: None}, "dict", [2], "{'a': <Own>, 2: None}"),
    (json, "module", None, "module json"),
    (len, "builtin_function_or_method", None, "len(...)"),
    (function, "function", None, "function(a, /, b=[1], *args, c=<Own>, **more)"),
    (lambda *, a: 0, "function", None, "<lambda>(*, a)"),
    (Own, "type", None, "class Own"),
    (OrderedDict(a=1), "collections.OrderedDict", None, repr(OrderedDict(a=1))),
    (Own(), f"{__name__.partition('.')[0]}.Own", None, "first second [31m"),
]


@pytest.mark.parametrize(("value", "kind", "shape", "shown"), DESCRIBED, ids=range(len(DESCRIBED)))
def test_description(value: Any, kind: str, shape: list[int] | None, shown: str) -> None:
    found = described(value)
    assert (found["type"], found["shape"], found["repr"]) == (kind, shape, shown)


def test_the_size_is_that_of_pythons_own_types() -> None:
    for value in (None, 1, 1 << 1000, "text", b"bytes", [1, 2], {1: 2}, range(3)):
        assert described(value)["size"] == sys.getsizeof(value)
    for value in (Own(), function, Own, OrderedDict(), json):
        assert described(value)["size"] is None


def test_the_repr_is_bounded_and_cheap_for_what_is_huge() -> None:
    assert text("x" * 50_000_000, repr_chars=20) == "'" + "x" * 18 + "…"
    assert len(text([["y" * 1000] * 100] * 100)) == 80
    assert described(["z"] * 1_000_000)["shape"] == [1_000_000]


def test_which_variables_are_shown() -> None:
    namespace = {"b": 1, "_hidden": 2, "In": 3, "a": 4, 5: 6, "last": 7}
    describe = variables.describe
    assert [entry["name"] for entry in describe(namespace, skip={"In"})] == ["b", "a", "last"]
    assert [entry["name"] for entry in describe(namespace, skip={"In"}, limit=2)] == ["b", "a"]


def test_a_namespace_that_changes_can_be_described() -> None:
    namespace: dict[str, Any] = {"held": {}}
    stop = threading.Event()

    def change() -> None:
        for number in range(10**9):
            namespace[f"v{number % 1000}"] = namespace["held"][number % 1000] = number
            if number % 7 == 0:
                namespace.pop(f"v{number % 500}", None)
                namespace["held"].pop(number % 500, None)
            if stop.is_set():
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            variables.describe(namespace, skip=())
    finally:
        stop.set()
        thread.join()


def test_user_code_that_raises_or_gives_nonsense() -> None:
    class Text(str):
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("user code outside of the thread")

        split = __len__ = __str__ = __format__ = __getitem__  # type: ignore[assignment]

    def shown(result: Any) -> str:
        def show(self: object) -> Any:
            if isinstance(result, BaseException):
                raise result
            return result

        return text(type("C", (), {"__repr__": show})())

    assert shown(ZeroDivisionError()) == "<C: repr failed: ZeroDivisionError>"
    assert shown(SystemExit()) == "<C: repr failed: SystemExit>"
    assert shown(5) == "<C: repr failed: TypeError>"
    assert shown(Text("of a class of its own")) == "of a class of its own"
    assert shown("\udc80") == " "


def test_a_repr_that_takes_too_long_is_given_up() -> None:
    ended = threading.Event()

    class Slow:
        def __repr__(self) -> str:
            try:
                while True:
                    time.sleep(0.001)
            finally:
                ended.set()

    namespace = {f"s{number}": Slow() for number in range(100)} | {"last": 1}
    began = time.monotonic()
    entries = variables.describe(namespace, skip=(), seconds=0.5)
    assert time.monotonic() - began < 30
    assert entries[0]["repr"] == "<Slow: repr took too long>"
    assert entries[99]["repr"] == "<Slow: no time left for its repr>"
    assert entries[100]["repr"] == "1"
    assert ended.wait(20)  # the thread was told to end


def test_threads_that_can_not_be_ended_do_not_pile_up() -> None:
    release = threading.Event()

    class Stuck:
        def __repr__(self) -> str:
            release.wait(20)  # in the interpreter's own code, where nothing reaches it
            return "late"

    before = threading.active_count()
    try:
        for _ in range(10):
            text(Stuck(), seconds=0.05)
        assert threading.active_count() - before <= variables.MAX_STUCK
        assert text(Stuck()) == "<Stuck: no time left for its repr>"
    finally:
        release.set()
    until = time.monotonic() + 20
    while variables.stuck and time.monotonic() < until:
        time.sleep(0.01)
        text(Own())
    assert text(Own()) == "first second [31m"


def test_a_class_that_lies_runs_its_code_in_the_limited_thread_only() -> None:
    here = threading.current_thread()

    def lie(*_: object) -> Any:
        assert threading.current_thread() is not here
        raise RuntimeError

    class Meta(type):
        __getattribute__ = __eq__ = __hash__ = __instancecheck__ = lie  # type: ignore[assignment]

    members = dict.fromkeys(("__getattribute__", "__len__", "__sizeof__", "__repr__", "__hash__"), lie)
    members |= dict.fromkeys(("__class__", "shape", "nbytes", "columns", "dtype"), property(lie))
    lying = Meta("DataFrame", (), {**members, "__module__": "pandas.core"})
    assert described(lying()) == {
        "type": "pandas.DataFrame",
        "size": None,
        "shape": None,
        "repr": "<DataFrame: repr failed: RuntimeError>",
    }
    assert text(lying).startswith("class DataFrame")
    assert text([lying()]) == "[<DataFrame>]"
    assert text({"k": (lying,)}) == "{'k': (<Meta>,)}"


class Usage(int):
    def sum(self) -> int:
        return int(self)


class Flat(list[Any]):
    def __getitem__(self, index: Any) -> Any:
        return Flat(super().__getitem__(index))

    def tolist(self) -> list[Any]:
        return list(self)


def stand_in(package: str, name: str, **members: Any) -> tuple[types.ModuleType, Any]:
    """A module and an object that has the attributes of a library's, and whose repr is never asked."""
    kind = type(name, (), {"__module__": f"{package}.core", "__repr__": lambda self: 1 / 0, **members})
    module = types.ModuleType(package)
    setattr(module, name, kind)
    return module, kind()


NUMBERS = {"shape": (3, 3), "nbytes": 72, "size": 9, "flat": Flat(range(9))}
FLOATS = type("dtype", (), {"kind": "f", "__str__": lambda self: "float64"})()
OBJECTS = type("dtype", (), {"kind": "O", "__str__": lambda self: "object"})()
TABLE = {"shape": (3, 2), "columns": ["a", "b"]}
USED = {"memory_usage": lambda self, deep: Usage(176 if not deep else 0)}


@pytest.mark.parametrize(
    ("package", "name", "members", "size", "shape", "shown"),
    [
        ("numpy", "ndarray", NUMBERS | {"dtype": FLOATS}, 72, [3, 3], "ndarray 3 x 3 float64: 0, 1, 2, 3, 4, 5, …"),
        ("numpy", "ndarray", NUMBERS | {"dtype": OBJECTS}, 72, [3, 3], "ndarray 3 x 3 object"),
        ("pandas", "DataFrame", TABLE | USED, 176, [3, 2], "DataFrame 3 rows x 2 columns: a, b"),
        ("pandas", "Series", {"shape": (3,), "dtype": "int64"} | USED, 176, [3], "Series 3 int64"),
        ("polars", "DataFrame", TABLE, None, [3, 2], "DataFrame 3 rows x 2 columns: a, b"),
        ("torch", "Tensor", {"shape": (), "dtype": "torch.float32"}, None, [], "Tensor scalar torch.float32"),
        ("pandas", "DataFrame", {}, None, None, "<DataFrame: repr failed: AttributeError>"),
    ],
)
def test_data_of_the_libraries(
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    name: str,
    members: dict[str, Any],
    size: int | None,
    shape: list[int] | None,
    shown: str,
) -> None:
    module, value = stand_in(package, name, **members)
    monkeypatch.setitem(sys.modules, package, module)
    assert described(value) == {"type": f"{package}.{name}", "size": size, "shape": shape, "repr": shown}
