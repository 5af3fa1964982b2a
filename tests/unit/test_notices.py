"""What is told of the session before, and of variables: each sentence, and whatever else a container may say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager.errors import SandboxError
from session_manager.notices import MOST_NAMES, MOST_REASONS, at, clean, of_the_session_before
from session_manager.variables import MOST_VARIABLES, SavedVariables, Variable, saved_from, variables_from

NOON = 1795608000  # 2026-11-25 12:00 UTC
LONG = 6000
"""Characters that no notice is longer than."""

# -- the session before ---


def test_where_nothing_was_before_there_is_nothing_to_tell() -> None:
    assert of_the_session_before({}, found=False) is None
    assert of_the_session_before({"id": 3, "ended": None, "restore": []}, found=False) is None


def test_files_alone_that_were_found() -> None:
    assert of_the_session_before({}, found=True) == (
        "An earlier session of this key has ended. Its variables are gone; its files are kept."
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("idle", "was put away because no cell had run for a while"),
        ("age", "was put away because it had lived for long"),
        ("network", "was put away because its way to the network was gone"),
        ("full", "was put away to make room for another session"),
        ("stopped", "was stopped"),
        ("another", "ended"),
        (None, "ended"),
        (["idle"], "ended"),
    ],
)
def test_how_it_ended(reason: object, words: str) -> None:
    before = {"ended": {"at": NOON, "reason": reason, "saved": False}}
    assert of_the_session_before(before, found=True) == (
        f"The session {words} at 2026-11-25 12:00 UTC. Its variables are gone; its files are kept."
    )


def test_variables_that_came_back() -> None:
    before = {
        "ended": {"at": NOON + 90, "reason": "idle", "saved": True},
        "restore": {"restored": ["x", "frame"], "failed": [], "at": NOON},
    }
    assert of_the_session_before(before, found=True) == (
        "The session was put away because no cell had run for a while at 2026-11-25 12:01 UTC."
        " Variables are back as they were saved at 2026-11-25 12:00 UTC: x, frame. Files are kept."
    )


def test_variables_that_did_not_come_back_are_named_with_the_reason() -> None:
    failed = [{"name": f"v{number}", "reason": "no pickle"} for number in range(MOST_REASONS + 2)]
    before = {"restore": {"restored": [], "failed": failed}}
    assert of_the_session_before(before, found=False) == (
        "An earlier session of this key has ended. No variables came back. Not restored: v0 (no pickle),"
        " v1 (no pickle), v2 (no pickle), v3 (no pickle), v4 (no pickle) and 2 more. Files are kept."
    )


@pytest.mark.parametrize(("count", "more"), [(None, 5), (2000, 1980), (1, 5), (10**30, 5), (True, 5), ("9", 5)])
def test_many_variables_are_counted(count: object, more: int) -> None:
    names = [f"v{number}" for number in range(MOST_NAMES + 5)]
    told = of_the_session_before({"restore": {"restored": names, "restored_count": count}}, found=True)
    assert told is not None
    assert f"v0, v1, v2, {', '.join(names[3:MOST_NAMES])} and {more} more. Files" in told


def test_variables_that_could_not_be_restored_at_all() -> None:
    before = {"restore": {"error": "Python ended\nas it restored them"}}
    assert of_the_session_before(before, found=True) == (
        "An earlier session of this key has ended. Its saved variables could not be restored"
        " (Python ended as it restored them); its files are kept."
    )


@pytest.mark.parametrize(
    "time", [None, 0, -1, math.nan, math.inf, -math.inf, 1e11, 10**400, True, "12:00", [NOON], {}, 1e-300 - 1]
)
def test_a_time_that_is_none_is_left_out(time: object) -> None:
    assert at(time) == ""


def test_times() -> None:
    assert at(NOON + 59.9) == at(NOON) == " at 2026-11-25 12:00 UTC"
    assert at(0.5) == " at 1970-01-01 00:00 UTC"
    assert at(99999999999) == " at 5138-11-16 09:46 UTC"


# -- text that is shown ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x", "x"),
        ("größe 変数 🙂", "größe 変数 🙂"),
        (" a\n\tb\r\n  c\0d\x1b[31mred\x7f ", "a b c d [31mred"),
        ("\u202etxt.exe\u2028\u200b\ud800", "txt.exe"),
        ("x" * 1000, "x" * 120),
        ("", ""),
        (None, "?"),
        (3, "?"),
        ([["deep"]], "?"),
    ],
)
def test_clean(text: object, shown: str) -> None:
    assert clean(text) == shown


def deep(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


HOSTILE = [
    None,
    True,
    -1,
    10**5000,
    math.nan,
    math.inf,
    "\x1b]0;x\a" * 99,
    "x" * 100_000,
    deep(100_000),
    {},
    [[]],
    b"x",
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_value_in_any_place_makes_a_notice_fail_or_grow(value: Any) -> None:
    places: list[dict[str, Any]] = [
        {"ended": value, "restore": value},
        {"ended": {"at": value, "reason": value, "saved": value}},
        {"restore": {"error": value}},
        {"restore": {"restored": value, "failed": value, "at": value, "restored_count": value}},
        {"restore": {"restored": [value] * 500, "failed": [value] * 500}},
        {"restore": {"restored": ["x"], "failed": [{"name": value, "reason": value}] * 500}},
    ]
    for before in places:
        told = of_the_session_before(before, found=True)
        assert told is not None
        assert told.isprintable()
        assert len(told) < LONG


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["at", "reason", "restored", "failed", "error", "name", "size"]), inner)
    ),
    max_leaves=8,
)


@given(ended=anything, restore=anything, found=st.booleans())
def test_whatever_a_container_says_becomes_a_line_or_nothing(ended: object, restore: object, found: bool) -> None:
    told = of_the_session_before({"ended": ended, "restore": restore}, found=found)
    assert told is None or (told.isprintable() and len(told) < LONG)


# -- variables ---


def test_variables_as_the_kernel_lists_them() -> None:
    listed = [
        {"name": "x", "type": "int", "size": 28, "shape": None, "repr": "42"},
        {"name": "a", "type": "ndarray", "size": 800, "shape": [10, 10], "repr": "array([[0,\n 1]])"},
        {"name": "f"},
    ]
    assert variables_from({"status": "ok", "variables": listed}) == [
        Variable("x", "int", 28, None, "42"),
        Variable("a", "ndarray", 800, (10, 10), "array([[0, 1]])"),
        Variable("f", "?", None, None, "?"),
    ]


@pytest.mark.parametrize("listed", [None, {}, "xyz", 3, [None, 3, [], "x", {}, {"name": None}, {"name": ["x"]}]])
def test_a_list_of_variables_that_is_none(listed: object) -> None:
    assert variables_from({"variables": listed}) == []
    assert variables_from({}) == []


def test_more_variables_than_anybody_reads() -> None:
    assert len(variables_from({"variables": [{"name": "x"}] * 2 * MOST_VARIABLES})) == MOST_VARIABLES


@pytest.mark.parametrize("shape", [[1.5], [True], [-1], [2**63], ["3"], [[]], [1] * 100, {}, "12", 3])
def test_a_shape_that_is_none(shape: object) -> None:
    (variable,) = variables_from({"variables": [{"name": "x", "shape": shape}]})
    assert variable.shape is None


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_no_value_in_any_place_makes_a_list_fail_or_grow(value: Any) -> None:
    fields = dict.fromkeys(("type", "size", "shape", "repr"), value)
    (variable,) = variables_from({"variables": [{"name": "\x1bx" * 1000, **fields}]})
    assert all(len(text) <= 120 and text.isprintable() for text in (variable.name, variable.type, variable.repr))
    assert variable.size is None
    assert variable.shape is None
    saved = saved_from({"saved": [value], "failed": [{"name": value, "reason": value}, value], "bytes": value})
    assert len(saved.saved) == 1
    assert saved.size == 0
    assert all(len(text) <= 120 for text in (*saved.saved, *(text for pair in saved.failed for text in pair)))


@given(anything, anything)
def test_whatever_a_kernel_says_of_its_variables(listed: object, report: object) -> None:
    assert all(isinstance(variable, Variable) for variable in variables_from({"variables": listed}))
    try:
        saved = saved_from(report)
    except SandboxError as error:
        assert len(str(error)) < 300
    else:
        assert isinstance(saved, SavedVariables)


def test_what_was_saved() -> None:
    report = {"saved": ["x", "y"], "failed": [{"name": "f", "reason": "a function\nof a cell"}], "bytes": 99, "at": 1}
    assert saved_from(report) == SavedVariables(("x", "y"), (("f", "a function of a cell"),), 99)
    assert saved_from({}) == SavedVariables((), (), 0)


@pytest.mark.parametrize(
    ("report", "why"),
    [
        ({"error": "OSError: [Errno 28]\nNo space"}, "OSError: [Errno 28] No space"),
        ({"error": None, "saved": ["x"]}, "?"),
        (None, "no answer"),
        ([], "no answer"),
    ],
)
def test_nothing_was_saved(report: object, why: str) -> None:
    with pytest.raises(SandboxError) as caught:
        saved_from(report)
    assert str(caught.value) == f"The variables were not saved: {why}. What was saved before is still there."
