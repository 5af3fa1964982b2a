"""Variables that are saved before the end, or on request, and restored first of all: what the kernel is told when."""

from __future__ import annotations

import json

import pytest

from .supervised import OBEDIENT, WAITING, Start, Supervised, wait_until

SAVED_BEFORE = "Path('.docker-interpreter/variables').mkdir(parents=True, exist_ok=True)\n"
"""What makes a kernel that of a session whose variables an earlier container saved."""
SAVE = {"timeout": 20, "max_bytes": 1000}
HASTY = {"supervisor.COMMAND_GRACE": 0.1}


def told(supervised: Supervised, number: int = 1) -> None:
    """Wait until the kernel was told so many things."""
    wait_until(lambda: len(supervised.told()) == number)


def ended_as(supervised: Supervised) -> tuple[str, bool]:
    """What the container left to the next, once it has ended by itself."""
    assert supervised.ended()
    record = json.loads((supervised.workspace / ".docker-interpreter" / "ended.json").read_text())
    return record["reason"], record["saved"]


# -- before the end ---


def test_variables_are_saved_before_an_idle_session_ends(start: Start) -> None:
    supervised = start(OBEDIENT, idle_timeout=0.3, save=SAVE)
    told(supervised)
    assert supervised.told() == [{"id": 1, "op": "save", "timeout": 20, "max_bytes": 1000, "reason": "idle"}]
    assert supervised.client().request("status")["busy"] is True
    supervised.may_answer(saved=["x"])
    assert ended_as(supervised) == ("idle", True)
    before = start(OBEDIENT).attached().request("before")
    assert before["ended"]["saved"] is True


@pytest.mark.parametrize("report", [{"error": "OSError"}, {}])
def test_what_could_not_be_saved_keeps_nobody_from_ending(start: Start, report: dict[str, object]) -> None:
    supervised = start(OBEDIENT, idle_timeout=0.3, save=SAVE)
    told(supervised)
    supervised.may_answer(**report)
    assert ended_as(supervised) == ("idle", False)


def test_a_kernel_that_is_not_done_in_time_keeps_nobody_from_ending(start: Start) -> None:
    supervised = start(OBEDIENT, HASTY, idle_timeout=0.3, save={**SAVE, "timeout": 0.2})
    assert ended_as(supervised) == ("idle", False)


def test_a_kernel_that_dies_of_it_keeps_nobody_from_ending(start: Start) -> None:
    supervised = start("ready()\nnext(commands)\nos._exit(3)", idle_timeout=0.3, save=SAVE)
    assert ended_as(supervised) == ("idle", False)


def test_a_kernel_that_is_dead_has_nothing_to_save(start: Start) -> None:
    supervised = start("ready()", idle_timeout=0.3, save=SAVE)
    assert ended_as(supervised) == ("idle", False)


def test_without_a_word_on_saving_nothing_is_saved(start: Start) -> None:
    supervised = start(OBEDIENT, idle_timeout=0.3, save=None)
    assert ended_as(supervised) == ("idle", False)
    assert supervised.told() == []


def test_nobody_gets_the_turn_meanwhile_and_who_comes_saves_it_from_the_end(start: Start) -> None:
    supervised = start(OBEDIENT, idle_timeout=0.3, save=SAVE)
    told(supervised)
    client = supervised.attached()
    asked = client.ask("acquire")
    assert client.is_quiet(0.2)
    supervised.may_answer(saved=["x"])
    assert client.answer(asked) == {"id": asked}
    assert client.request("status")["busy"] is False
    client.close()
    assert ended_as(supervised) == ("idle", True)
    assert len(supervised.told()) == 2


def test_answers_to_nothing_are_passed_over(start: Start) -> None:
    code = """
ready()
command = next(commands)
for line in (b"", b"{", b"[1]", b"null", b"[" * 2000, b'{"id": 77}', b'{"id": "1"}', b"{}", b'{"saved": []}'):
    channel.sendall(line + chr(10).encode())
wait_for("go")
answer(command, saved=[])
answer(command, saved=[])
"""
    supervised = start(code + WAITING.partition("\n")[2], idle_timeout=0.3, save=SAVE)
    wait_until(lambda: supervised.client().request("status")["busy"] is True)
    assert supervised.client().request("status")["busy"] is True
    (supervised.workspace / "go").touch()
    assert ended_as(supervised) == ("idle", True)


def test_an_answer_without_an_end_is_given_up(start: Start) -> None:
    code = "ready()\nnext(commands)\nchannel.sendall(b'x' * 200_000)\nwhile True: time.sleep(60)"
    supervised = start(code, HASTY, idle_timeout=0.3, save={**SAVE, "timeout": 0.3})
    assert ended_as(supervised) == ("idle", False)


# -- on request ---


def test_who_has_the_turn_may_have_them_saved(start: Start) -> None:
    supervised = start(OBEDIENT)
    client, other = supervised.attached(), supervised.attached()
    fields = {"seconds": 5, "max_bytes": 99, "reason": "asked"}
    refused = {"error": "it is not this client's turn"}
    assert client.request("save", **fields) == {"id": client.last, **refused}
    client.request("acquire")
    assert other.request("save", **fields) == {"id": other.last, **refused}
    asked = client.ask("save", **fields)
    told(supervised)
    assert supervised.told() == [{"id": 1, "op": "save", "timeout": 5.0, "max_bytes": 99, "reason": "asked"}]
    assert client.is_quiet(0.1)
    again = client.request("save", **fields)
    assert "error" in again
    waiting = other.ask("acquire")
    supervised.may_answer(saved=["x"], bytes=7)
    client.event(event="turn wanted")
    assert client.answer(asked) == {"id": asked, "report": {"saved": ["x"], "bytes": 7}}
    client.request("release")
    assert other.answer(waiting) == {"id": waiting}


def test_a_client_that_goes_does_not_see_its_answer_and_the_turn_waits_for_it(start: Start) -> None:
    supervised = start(OBEDIENT)
    client, other = supervised.attached(), supervised.attached()
    client.request("acquire")
    client.ask("save", seconds=5, max_bytes=99)
    told(supervised)
    client.close()
    asked = other.ask("acquire")
    assert other.is_quiet(0.2)
    supervised.may_answer(saved=[])
    assert other.answer(asked) == {"id": asked}


def test_a_dead_kernel_saves_nothing(start: Start) -> None:
    supervised = start("ready()\nwait_for('go')")
    client = supervised.attached()
    client.request("acquire")
    (supervised.workspace / "go").touch()
    client.event(state="dead")
    assert client.request("save", seconds=5, max_bytes=99)["error"] == "Python does not run"


def test_a_kernel_that_dies_or_is_replaced_meanwhile_is_told(start: Start) -> None:
    supervised = start(OBEDIENT)
    client = supervised.attached()
    client.request("acquire")
    for generation in (2, 3):
        asked = client.ask("save", seconds=5, max_bytes=99)
        told(supervised, generation - 1)
        restart = client.ask("restart")
        assert client.answer(asked)["report"] == {"error": "Python ended"}
        client.answer(restart)
        client.event(state="ready", generation=generation)


def test_one_that_takes_too_long_is_told(start: Start) -> None:
    supervised = start(OBEDIENT, HASTY)
    client = supervised.attached()
    client.request("acquire")
    assert client.request("save", seconds=0.2, max_bytes=99)["report"] == {"error": "it took too long"}
    assert client.request("status")["busy"] is False


STRANGE = [{}, {"seconds": "5"}, {"seconds": []}, {"seconds": 10**400}, {"max_bytes": float("inf")}, {"max_bytes": {}}]


@pytest.mark.parametrize("fields", STRANGE, ids=range(len(STRANGE)))
def test_a_request_to_save_that_makes_no_sense_is_refused(start: Start, fields: dict[str, object]) -> None:
    client = start(OBEDIENT).attached()
    client.request("acquire")
    client.ask("save", **({"seconds": 5, "max_bytes": 9, **fields} if fields else {}))
    if fields.get("seconds") == "5":
        assert client.is_quiet(0.05)  # it is a number all the same
    else:
        assert "bad request" in client.answer(None)["error"]
        assert client.request("status")["busy"] is False


# -- first of all ---


def test_a_kernel_is_ready_only_when_the_variables_are_back(start: Start) -> None:
    supervised = start(SAVED_BEFORE + OBEDIENT, restore={"timeout": 20})
    client = supervised.client()
    assert client.request("attach")["kernel"]["state"] == "starting"
    told(supervised)
    assert supervised.told() == [{"id": 1, "op": "restore", "timeout": 20}]
    asked = client.ask("acquire")
    assert client.is_quiet(0.2)
    supervised.may_answer(restored=["x"], failed=[], at=1)
    client.event(state="ready", generation=1)
    client.answer(asked)
    assert client.request("before") == {"id": client.last, "restore": {"restored": ["x"], "failed": [], "at": 1}}
    assert client.request("before") == {"id": client.last}
    client.request("restart")
    client.event(state="ready", generation=2)
    assert len(supervised.told()) == 1


@pytest.mark.parametrize(
    ("beginning", "options"),
    [("", {"restore": {"timeout": 20}}), (SAVED_BEFORE, {"restore": None}), (SAVED_BEFORE, {})],
)
def test_where_nothing_is_to_be_restored_a_kernel_is_ready_at_once(
    start: Start, beginning: str, options: dict[str, object]
) -> None:
    supervised = start(beginning + OBEDIENT, **options)
    client = supervised.attached()
    assert client.request("before") == {"id": client.last}
    assert supervised.told() == []


BROKEN = {
    "dies": ("os._exit(3)", "Python ended as it restored them"),
    "never answers": ("while True: time.sleep(60)", "it took too long"),
    "fails": ("answer(command, error='MemoryError')\nwhile True: time.sleep(60)", "MemoryError"),
}


@pytest.mark.parametrize(("does", "error"), BROKEN.values(), ids=BROKEN)
def test_a_kernel_that_fails_to_restore_is_replaced_by_one_that_does_not_try(
    start: Start, does: str, error: str
) -> None:
    code = f"""
{SAVED_BEFORE}
ready()
command = next(commands)
with open("told", "a") as told: told.write(json.dumps(command) + chr(10))
{does}
"""
    supervised = start(code, HASTY, restore={"timeout": 0.3})
    client = supervised.client()
    client.request("attach")
    assert client.event(state="ready")["generation"] == 2
    assert client.request("before") == {"id": client.last, "restore": {"error": error}}
    assert len(supervised.told()) == 1


def test_a_restart_while_variables_are_restored(start: Start) -> None:
    supervised = start(SAVED_BEFORE + OBEDIENT, restore={"timeout": 20})
    client = supervised.client()
    client.request("attach")
    told(supervised)
    client.request("restart")
    assert client.event(state="ready")["generation"] == 2
    assert "error" in client.request("before")["restore"]


def test_a_kernel_that_died_before_it_was_ready_leaves_the_next_as_it_is(start: Start) -> None:
    code = "if not Path('tried').exists():\n    Path('tried').touch()\n    os._exit(3)\n"
    supervised = start(code + SAVED_BEFORE + OBEDIENT, restore={"timeout": 20})
    client = supervised.client()
    if client.request("attach")["kernel"]["state"] != "dead":
        client.event(state="dead")
    client.request("restart")
    client.event(state="ready", generation=2)
    assert supervised.told() == []
