"""What the supervisor is asked, well-formed or not, and several things at once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .supervised import BUSY, PATIENCE, Start, Supervised, wait_until

# -- requests ---

MALFORMED = {
    "no JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "a string": b'"status"',
    "no op": b'{"id": 1}',
    "an op that is none": b'{"id": 1, "op": ["status"]}',
    "no id": b'{"op": "status"}',
    "no id to wait for": b'{"op": "acquire"}',
    "no UTF-8": b'{"id": 1, "op": "\xff"}',
    "deep": b"[" * 60_000,
    "a number of many digits": b'{"id": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_answered_and_survived(start: Start, line: bytes) -> None:
    client = start().client()
    client.send(line)
    assert "error" in client.line()
    assert client.request("status")["busy"] is False


def test_an_unknown_op_is_refused(start: Start) -> None:
    client = start().client()
    assert "unknown op 'fly'" in client.request("fly")["error"]


def test_a_line_without_an_end_closes_its_connection_alone(start: Start) -> None:
    supervised = start()
    client, other = supervised.client(), supervised.client()
    client.socket.sendall(b"x" * 65537)
    assert client.lines.readline() == b""
    assert "kernel" in other.request("status")


def test_requests_may_come_in_pieces_and_together(start: Start) -> None:
    client = start().client()
    for byte in b'{"id": 1, "op": "status"}\n':
        client.socket.sendall(bytes([byte]))
    assert client.line()["id"] == 1
    client.send(b'{"id": "a", "op": "status"}\n{"id": null, "op": "status"}')
    assert [client.line()["id"] for _ in range(2)] == ["a", None]


def test_a_client_that_never_reads_is_dropped_and_holds_up_nobody(start: Start) -> None:
    supervised = start()
    deaf, other = supervised.client(), supervised.client()
    deaf.socket.settimeout(0.2)
    with pytest.raises(OSError, match=r"timed out|Broken pipe|reset"):
        while True:
            deaf.socket.sendall(b'{"id": 1, "op": "status"}\n' * 100)
    assert other.request("status")["id"] == 1


def test_status_says_what_runs(start: Start) -> None:
    supervised = start(BUSY)
    client = supervised.attached()
    status = client.request("status")
    assert (status["busy"], status["attached"]) == (True, 1)
    assert 0 <= status["idle"] <= status["age"] + 1 < PATIENCE
    assert status["memory"] > 1 << 20
    assert status["running"]["msg_id"] == "m"
    assert 0 <= status["running"]["seconds"] < PATIENCE
    supervised.record("B", ago=100, msg_id="m")
    assert 100 <= client.request("status")["running"]["seconds"] < 100 + PATIENCE
    supervised.record("I", msg_id="m", ok=True)
    status = client.request("status")
    assert (status["busy"], status["last_cell"]) == (False, {"msg_id": "m", "ok": True})
    assert status["running"] is None
    for damage in ("I", "I{", "I" + "[" * 10_000, ""):
        (supervised.runtime / "activity").write_text(damage)
        assert client.request("status")["last_cell"] == {}
    (supervised.runtime / "activity").unlink()
    assert client.request("status")["busy"] is False


# -- several things at once ---


class Stopped:
    """The supervisor finds all that happens meanwhile in one wake-up."""

    def __init__(self, supervised: Supervised) -> None:
        self.process = supervised.process

    def __enter__(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: stat.read_bytes().rpartition(b")")[2].split()[0] == b"T")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("goes_first", [False, True])
def test_a_client_that_goes_as_another_asks_for_its_turn(start: Start, goes_first: bool) -> None:
    supervised = start()
    holder, other = supervised.client(), supervised.client()
    holder.request("acquire")
    other.request("status")
    with Stopped(supervised):
        if goes_first:
            holder.close()
        asked = other.ask("acquire")
        holder.close()
    assert other.answer(asked) == {"id": asked}
    assert "kernel" in other.request("status")


def test_a_client_that_goes_without_waiting_for_its_answers_has_no_turn(start: Start) -> None:
    supervised = start()
    hasty, other = supervised.client(), supervised.client()
    hasty.request("status")
    with Stopped(supervised):
        hasty.send(b'{"id": 2, "op": "status"}\n{"id": 3, "op": "acquire"}')
        hasty.close()
    other.request("status")
    assert other.request("acquire") == {"id": 2}


def test_a_kernel_that_writes_as_it_is_restarted(start: Start) -> None:
    code = "ready()\nwait_for('go')\nos.unlink('go')\nos.write(1, b'words')\nPath('written').touch()\n"
    supervised = start(code + "while True: time.sleep(60)")
    client = supervised.attached()
    for generation in (2, 3):
        with Stopped(supervised):
            asked = client.ask("restart")
            (supervised.workspace / "go").touch()
            wait_until((supervised.workspace / "written").exists)
            (supervised.workspace / "written").unlink()
        client.answer(asked)
        client.event(state="ready", generation=generation)
