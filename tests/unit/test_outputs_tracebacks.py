"""Tracebacks as IPython kernels really send them (kernel_tracebacks.json), as a model reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from session_manager.outputs import Error, OutputLog, text_for_model

RECORDED = json.loads(Path(__file__).with_name("kernel_tracebacks.json").read_text())


def read(name: str) -> str:
    log = OutputLog(1 << 20)
    for message in RECORDED[name]["messages"]:
        log.apply(message["msg_type"], message["content"])
    assert log.malformed == 0
    return text_for_model(log.outputs, code=RECORDED[name]["code"])


def test_a_name_error_points_at_its_line() -> None:
    assert read("name_error").split("\n") == [
        "Traceback (most recent call last):",
        "Cell In[3], line 2",
        "      1 a = 1",
        "----> 2 b = a + undefined_thing",
        "      3 print(b)",
        "NameError: name 'undefined_thing' is not defined",
    ]


def test_frames_of_the_user_s_functions_are_kept_across_cells() -> None:
    lines = read("nested").split("\n")
    assert lines[0] == "start"
    assert [line for line in lines if line.startswith(("Cell", "---->"))] == [
        "Cell In[5], line 6",
        "----> 6 outer(1)",
        "Cell In[5], line 3, in outer(x)",
        "----> 3     return inner(y)",
        "Cell In[4], line 3, in inner(x)",
        "----> 3     return 10 / x",
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_a_syntax_error_shows_where() -> None:
    assert read("syntax_error") == "Cell In[1], line 2\n    if x\n        ^\nSyntaxError: expected ':'"
    assert read("syntax_error_in_eval").endswith(
        "Cell In[22], line 1\n    eval('1 +')\nFile <string>:1\n    1 +\n      ^\nSyntaxError: invalid syntax"
    )


def test_frames_of_libraries_are_one_line_each() -> None:
    text = read("pandas")
    compiled = "pandas._libs.hashtable.PyObjectHashTable.get_item"
    assert text.split("\n") == [
        "(1, 1)",
        "Traceback (most recent call last):",
        "File …/pandas/core/indexes/base.py:3816, in Index.get_loc",
        "File pandas/_libs/index.pyx:172, in pandas._libs.index.IndexEngine.get_loc",
        "File pandas/_libs/index.pyx:201, in pandas._libs.index.IndexEngine.get_loc",
        f"File pandas/_libs/hashtable_class_helper.pxi:7726, in {compiled}",
        f"File pandas/_libs/hashtable_class_helper.pxi:7734, in {compiled}",
        "KeyError: 'missing'",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        "Cell In[6], line 4",
        "      1 import pandas as pd",
        "      2 df = pd.DataFrame({'a': [1]})",
        "      3 print(df.shape)",
        "----> 4 df['missing']",
        "File …/pandas/core/frame.py:4330, in DataFrame.__getitem__",
        "File …/pandas/core/indexes/base.py:3823, in Index.get_loc",
        "KeyError: 'missing'",
    ]


def test_the_standard_library_is_a_library() -> None:
    assert "File …/json/decoder.py:353, in JSONDecoder.raw_decode" in read("standard_library")


def test_repeated_frames_are_counted() -> None:
    lines = read("recursion").split("\n")
    assert lines[-4:] == [
        "      1 def r(n):",
        "----> 2     return r(n + 1)",
        "… the frame above 8 more times …",
        "RecursionError: maximum recursion depth exceeded",
    ]


def test_many_library_frames_are_counted() -> None:
    frames = tuple(f"File /usr/lib/python3.11/site-packages/x/m.py:{n}, in f(a)\n-> {n} call()\n" for n in range(40))
    text = text_for_model([Error("E", "v", (*frames, "E: v"))])
    assert text.split("\n") == [
        "File …/x/m.py:0, in f",
        "File …/x/m.py:1, in f",
        "… 36 more frames of libraries …",
        "File …/x/m.py:38, in f",
        "File …/x/m.py:39, in f",
        "E: v",
    ]


def test_a_module_of_the_user_s_own_is_shown_with_its_lines() -> None:
    frame = "File /mnt/model.py:2, in fit(x)\n      1 def fit(x):\n----> 2     return x.shape\n"
    text = text_for_model([Error("AttributeError", "no shape", (frame, "AttributeError: no shape"))])
    assert text == frame + "AttributeError: no shape"


def test_lines_below_a_cell_magic_are_shown_from_the_cell() -> None:
    assert read("cell_magic").split("\n")[-9:] == [
        "File <timed exec>:3",
        "      1 def inner2():",
        "      2     return 1/0",
        "----> 3 inner2()",
        "File <timed exec>:2, in inner2()",
        "      1 def inner2():",
        "----> 2     return 1/0",
        "      3 inner2()",
        "ZeroDivisionError: division by zero",
    ]


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("interrupt", "KeyboardInterrupt"),
        ("assertion", "AssertionError"),
        ("usage_error", "UsageError: Line magic function `%nosuchmagic` not found."),
        ("raised_from", "RuntimeError: wrapped"),
        ("message_of_many_lines", "line four"),
        ("system_exit", "SystemExit: 3"),
        ("exception_group", "    +------------------------------------"),
    ],
)
def test_the_end_says_what_happened(name: str, last: str) -> None:
    assert read(name).split("\n")[-1] == last


def test_the_cause_of_an_exception_comes_before_it() -> None:
    text = read("raised_from")
    assert text.index("KeyError: 'k'") < text.index("The above exception was") < text.index("RuntimeError: wrapped")


def test_a_message_of_many_lines_is_whole() -> None:
    assert read("message_of_many_lines").endswith("ValueError: line one\nline two\n\nline four")


def test_both_exceptions_of_a_group_are_there() -> None:
    text = read("exception_group")
    assert "ValueError: one" in text
    assert "TypeError: two" in text


@pytest.mark.parametrize(("error", "text"), [(Error("E", "v"), "E: v"), (Error("E", ""), "E"), (Error("", ""), "")])
def test_an_error_without_a_traceback_is_its_message(error: Error, text: str) -> None:
    assert text_for_model([error]) == text
