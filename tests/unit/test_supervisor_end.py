"""How long a container lives, and what it leaves to the next of its session."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .supervised import BUSY, INTERRUPTIBLE, OBEDIENT, WAITING, Start, Supervised, wait_until

# -- nobody there, nothing running ---


def test_nobody_attached_and_nothing_run_for_the_idle_time_is_the_end(start: Start) -> None:
    supervised = start(idle_timeout=1.5)
    supervised.client()  # who only asks is not attached
    assert supervised.ended()


def test_whoever_is_attached_keeps_it_alive(start: Start) -> None:
    supervised = start(idle_timeout=0.3)
    client, other = supervised.attached(), supervised.attached()
    wait_until(lambda: client.request("status")["idle"] > 1.0)
    other.close()
    wait_until(lambda: client.request("status")["attached"] == 1)
    assert client.request("status")["idle"] > 1.0
    client.close()
    assert supervised.ended()


def test_a_cell_that_runs_keeps_it_alive(start: Start) -> None:
    supervised = start(BUSY, idle_timeout=0.5)
    asking = supervised.client()
    supervised.attached().close()
    wait_until(lambda: asking.request("status")["age"] > 1.5)
    assert asking.request("status")["attached"] == 0
    supervised.record("I", ago=1000)
    assert supervised.ended()


def test_a_cell_that_ended_just_now_keeps_it_alive(start: Start) -> None:
    supervised = start(idle_timeout=600)
    client = supervised.attached()
    supervised.record("I", ago=1000)
    age = client.request("status")["age"]
    assert 0 <= client.request("status")["idle"] <= age + 1  # what was before its life does not count
    supervised.record("I")
    assert client.request("status")["idle"] < age + 1


def test_an_observer_is_told_of_the_kernel_and_is_no_company(start: Start) -> None:
    supervised = start(idle_timeout=1.0)
    observer = supervised.attached(observe=True)
    client = supervised.attached()
    assert observer.request("status")["attached"] == 1
    client.request("restart")
    observer.event(state="ready", generation=2)
    client.close()
    assert supervised.ended()
    assert not (supervised.workspace / ".docker-interpreter" / "ended.new").exists()


def test_a_dead_kernel_and_nobody_attached_is_the_end_before_the_idle_time(start: Start) -> None:
    changes = {"lifetime.DEAD_SECONDS": 0.3, "supervisor.LONGEST_PAUSE": 0.1}
    supervised = start("ready()\nwait_for('go')", changes)
    client = supervised.attached()
    (supervised.workspace / "go").touch()
    client.event(state="dead")
    wait_until(lambda: client.request("status")["age"] > 3.0)
    client.close()
    assert supervised.ended()


# -- a session that nobody can come back to ---


def test_nobody_there_for_its_time_ends_a_throw_away_session_whatever_runs(start: Start) -> None:
    supervised = start(BUSY, alone_timeout=0.5)
    observer = supervised.attached(observe=True)
    client = supervised.attached()
    wait_until(lambda: observer.request("status")["age"] > 1.5)
    client.close()
    assert supervised.ended()
    assert not (supervised.workspace / ".docker-interpreter").exists()


def test_nobody_who_ever_came_ends_it_too(start: Start) -> None:
    assert start(BUSY, alone_timeout=0.3).ended()


def test_coming_back_in_time_saves_it(start: Start) -> None:
    supervised = start(alone_timeout=3)
    supervised.attached().close()
    client = supervised.attached()
    wait_until(lambda: client.request("status")["age"] > 3.5)
    assert client.request("attach")["kernel"]["generation"] == 1
    client.close()
    assert supervised.ended()


def test_a_container_of_a_pool_begins_its_life_when_it_is_claimed(start: Start) -> None:
    supervised = start(OBEDIENT, idle_timeout=600, save={"timeout": 9, "max_bytes": 9})
    client = supervised.attached()
    wait_until(lambda: client.request("status")["age"] > 3.0)
    claimed = time.monotonic()
    client.ask("claim")
    assert "bad request" in client.answer(None)["error"]
    assert client.request("claim", alone_timeout=None) == {"id": client.last}
    assert client.request("status")["age"] <= time.monotonic() - claimed
    client.request("claim", alone_timeout=0.5)
    client.close()
    assert supervised.ended()
    assert supervised.told() == []


@pytest.mark.parametrize("seconds", ["soon", [], {}, "nan!"])
def test_a_claim_that_makes_no_sense_is_refused(start: Start, seconds: object) -> None:
    client = start().client()
    client.ask("claim", alone_timeout=seconds)
    assert "bad request" in client.answer(None)["error"]
    assert "kernel" in client.request("status")


def test_it_is_kept_for_as_long_as_whoever_uses_it_wants(start: Start) -> None:
    supervised = start(idle_timeout=600, reap={"idle_timeout": 500, "save": True})
    client = supervised.attached()
    assert client.request("keep", idle_timeout=0.4, margin=0.1) == {"id": client.last}
    assert client.request("status")["reap"] == {"idle_timeout": 0.4, "save": True}
    client.close()
    assert supervised.ended()


@pytest.mark.parametrize("seconds", ["soon", None, {}, 0, -1, "nan", "inf"])
def test_a_time_that_makes_no_sense_is_refused(start: Start, seconds: object) -> None:
    client = start(idle_timeout=600, reap={"idle_timeout": 500}).client()
    client.ask("keep", idle_timeout=seconds, margin=0)
    assert "bad request" in client.answer(None)["error"]
    assert client.request("status")["reap"] == {"idle_timeout": 500}


# -- cells that run for too long ---


def test_a_cell_that_runs_too_long_is_interrupted_once_and_then_the_kernel_is_replaced(start: Start) -> None:
    busy_at_first = "if not Path('interrupted').exists(): Path(activity).write_text('B{\"msg_id\": \"m\"}' + chr(10))\n"
    changes = {"lifetime.INTERRUPT_AFTER": 0.1, "lifetime.RESTART_AFTER": 2.5}
    supervised = start(INTERRUPTIBLE + busy_at_first + WAITING, changes, longest_cell=0.2)
    client = supervised.attached()
    first = supervised.pid()
    client.event(state="ready", generation=2)
    assert (supervised.workspace / "interrupted").read_text().split() == [str(first)]
    assert client.request("status")["running"] is None


def test_a_cell_within_its_time_is_left_alone(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + BUSY, {"lifetime.INTERRUPT_AFTER": 0.1}, longest_cell=60)
    client = supervised.attached()
    wait_until(lambda: client.request("status")["running"]["seconds"] > 1.5)
    assert not (supervised.workspace / "interrupted").exists()
    supervised.record("B", msg_id="m", ago=70)
    # each request makes it look at what has passed
    wait_until(lambda: client.request("status") and (supervised.workspace / "interrupted").exists())


# -- what is left to the next container ---


def record_of(supervised: Supervised) -> Path:
    return supervised.workspace / ".docker-interpreter" / "ended.json"


def stop(supervised: Supervised, **fields: object) -> None:
    supervised.client().request("shutdown", **fields)
    assert supervised.ended()


def test_who_stops_it_may_say_why_and_the_next_container_tells_it_once(start: Start) -> None:
    supervised = start()
    stop(supervised, reason="full", saved=True)
    assert record_of(supervised).stat().st_mode & 0o022 == 0
    assert record_of(supervised).parent.stat().st_mode & 0o077 == 0
    client = start().client()
    ended = client.request("before")["ended"]
    assert (ended["reason"], ended["saved"]) == ("full", True)
    assert time.time() - 60 < ended["at"] <= time.time()
    assert client.request("before") == {"id": client.last}
    assert not record_of(supervised).exists()


def test_where_nobody_says_why_nothing_is_left(start: Start) -> None:
    supervised = start()
    stop(supervised)
    assert not record_of(supervised).exists()
    assert "ended" not in start().client().request("before")


def test_a_shutdown_for_who_has_the_turn_is_refused_to_others(start: Start) -> None:
    supervised = start()
    client, other = supervised.client(), supervised.client()
    other.request("acquire")
    assert client.request("shutdown", turn=True, reason="idle") == {
        "id": client.last,
        "error": "it is not this client's turn",
    }
    assert "kernel" in client.request("status")
    assert other.request("shutdown", turn=True, reason="idle") == {"id": other.last}
    assert supervised.ended()
    assert json.loads(record_of(supervised).read_text())["reason"] == "idle"


def outside(path: Path) -> Path:
    """A file that nobody may come to through a link in the workspace."""
    return path.parents[2] / "outside"


def linked(path: Path) -> None:
    outside(path).write_text('{"at": 1, "reason": "idle", "saved": true}')
    path.symlink_to(outside(path))


def writing(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


PLACED: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link": linked,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a directory": lambda path: (path / "x").mkdir(parents=True),
    "nothing in it": writing(b""),
    "no JSON": writing(b"\xff\0garbage"),
    "huge": writing(b'{"at": 1, "reason": "' + b"x" * 1_000_000 + b'"}'),
    "deep": writing(b"[" * 60_000),
    "a list": writing("[1]"),
    "a number": writing("1"),
    "no time": writing('{"reason": "idle"}'),
    "a strange time": writing('{"at": "noon", "reason": "idle"}'),
    "many digits": writing('{"at": ' + "9" * 10_000 + "}"),
}


@pytest.mark.parametrize("place", PLACED.values(), ids=PLACED)
@pytest.mark.parametrize("name", ["ended.json", "ended.new"])
def test_whatever_lies_where_the_record_belongs_is_survived(
    start: Start, name: str, place: Callable[[Path], object]
) -> None:
    supervised = start()
    supervised.attached()  # it has looked for a record of its own
    path = record_of(supervised).with_name(name)
    path.parent.mkdir()
    place(path)
    before = outside(path).read_text() if outside(path).exists() else None
    stop(supervised)
    supervised = start()
    assert "ended" not in supervised.client().request("before")
    stop(supervised, reason="idle")
    assert (outside(path).read_text() if outside(path).exists() else None) == before
    if not path.is_dir():
        assert json.loads(record_of(supervised).read_text())["reason"] == "idle"


@pytest.mark.parametrize("reason", ["null", "3", "[" * 500 + "]" * 500, '"' + "x" * 1000 + '"', '"\\ud800"'])
def test_a_strange_reason_is_cut_or_left_out(start: Start, reason: str) -> None:
    supervised = start()
    supervised.attached()
    record_of(supervised).parent.mkdir()
    record_of(supervised).write_text(f'{{"at": 1e400, "saved": "yes", "reason": {reason}}}')
    stop(supervised)
    ended = start().client().request("before")["ended"]
    assert ended["saved"] is False
    assert ended["reason"] in ("", "x" * 200, "\ud800")


def test_a_place_that_can_t_be_written_to_keeps_nobody_from_ending(start: Start) -> None:
    supervised = start()
    record_of(supervised).parent.write_text("a file")
    stop(supervised, reason="idle")
    assert record_of(supervised).parent.read_text() == "a file"
