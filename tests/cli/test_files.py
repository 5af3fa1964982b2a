"""The command ``files``, and files of a run: on plain processes, which start soonest."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .conftest import CommandLine


def put(cli: CommandLine, key: str, **contents: str) -> None:
    for name, content in contents.items():
        (cli.folder / name).write_text(content)
    done = cli("files", key, "put", *contents, ".")
    assert done.returncode == 0, done.stderr


def test_in_listed_out_and_away(alone: CommandLine) -> None:
    (alone.folder / "my data.csv").write_text("a,b\n")
    (alone.folder / "folder/below").mkdir(parents=True)
    (alone.folder / "folder/below/x").write_text("deep")
    done = alone("files", "key", "put", "my data.csv", "folder", ".")
    assert done.returncode == 0, done.stderr
    listed = alone("files", "key")
    assert listed.returncode == 0 and "my data.csv" in listed.stdout and "folder/below/x" in listed.stdout
    entries = json.loads(alone("files", "key", "ls", "--json").stdout)
    assert {entry["path"]: entry["mime"] for entry in entries if entry["kind"] == "file"} == {
        "my data.csv": "text/csv",
        "folder/below/x": "application/octet-stream",
    }
    assert alone("files", "key", "get", "folder/below/x", "-o", "-").stdout == "deep"
    (alone.folder / "home").mkdir()
    assert alone("files", "key", "get", "*.csv", "home").returncode == 0
    assert (alone.folder / "home/my data.csv").read_text() == "a,b\n"
    refused = alone("files", "key", "rm", "folder")
    assert refused.returncode == 1 and "folder" in refused.stderr
    assert alone("files", "key", "rm", "-r", "folder").returncode == 0
    assert [entry["path"] for entry in json.loads(alone("files", "key", "--json").stdout)] == ["my data.csv"]


def test_the_files_of_a_session_that_has_ended(alone: CommandLine) -> None:
    put(alone, "key", file="content")
    assert alone("sessions", "stop", "key", "--yes").returncode == 0
    assert alone("files", "key", "get", "file", "-o", "-").stdout == "content"
    put(alone, "key", other="more")
    assert len(json.loads(alone("files", "key", "--json").stdout)) == 2
    assert json.loads(alone("sessions", "--json").stdout) == []


def test_what_is_here_is_overwritten_by_force_alone(alone: CommandLine) -> None:
    put(alone, "key", file="theirs")
    (alone.folder / "file").write_text("ours")
    refused = alone("files", "key", "get", "file")
    assert refused.returncode == 1 and "--force" in refused.stderr
    assert (alone.folder / "file").read_text() == "ours"
    assert alone("files", "key", "get", "file", "--force").returncode == 0
    assert (alone.folder / "file").read_text() == "theirs"


def test_names_from_inside_stay_in_the_folder_and_off_the_terminal(alone: CommandLine) -> None:
    code = (
        "import os\nos.makedirs('out/deep')\n"
        "open('out/\\x1b[31mred.txt', 'w').write('x'); open('out/deep/a.txt', 'w').write('y')\n"
        "os.symlink('/etc/passwd', 'out/passwd.txt')\n"
        "open('out/two\\nTaken home: lines.csv', 'w').write('z')"
    )
    assert alone("run", "-s", "key", "-c", code).returncode == 0
    code, shown = alone.on_a_terminal("files", "key")
    assert code == 0 and b"\x1b[31mred" not in shown and b"-> /etc/passwd" in shown
    got = alone("files", "key", "get", "out/deep/*.txt", "home")
    assert got.returncode == 0, got.stderr
    assert [path.name for path in (alone.folder / "home").rglob("*.txt")] == ["a.txt"]
    assert b"two\xef\xbf\xbdTaken home: lines.csv" in shown
    got = alone("files", "key", "get", "out/*.csv", "home")
    assert got.returncode == 0 and len(got.stdout.splitlines()) == 1, got.stdout
    refused = alone("files", "key", "get", "out/passwd.txt", "elsewhere")
    assert refused.returncode == 1 and not list(alone.folder.rglob("passwd.txt"))


def test_errors_say_what_to_do(alone: CommandLine) -> None:
    nobody = alone("files", "nobody")
    assert nobody.returncode == 1 and "no session 'nobody'" in nobody.stderr
    put(alone, "key", file="x")
    for arguments in (
        ["get", "nothing"],
        ["get", "*.none"],
        ["rm", "nothing"],
        ["ls", "nothing"],
        ["put", "nowhere", "."],
    ):
        failed = alone("files", "key", *arguments)
        assert failed.returncode in (1, 2) and failed.stderr.strip() and "Traceback" not in failed.stderr, arguments
    assert alone("files", "key", "list").returncode == 2


def test_a_run_takes_files_along_and_home(cli: CommandLine, tmp_path: Path) -> None:
    (cli.folder / "in put.csv").write_text("1,2")
    code = "import os; os.mkdir('out'); open('out/result.txt', 'w').write(open('in put.csv').read() * 2); 1/0"
    done = cli("run", "--file", "in put.csv", "--get", "out/*.txt", "results", "-c", code)
    assert done.returncode == 1, "the code raised"
    assert next((cli.folder / "results").rglob("result.txt")).read_text() == "1,21,2"
    missing = cli("run", "--file", "nowhere.csv", "-c", "print('ran')")
    assert missing.returncode in (2, 125) and "nowhere.csv" in missing.stderr and "ran" not in missing.stdout
    nothing = cli("run", "--get", "*.none", "results", "-c", "print('ran')")
    assert nothing.returncode != 0 and "ran" in nothing.stdout and "*.none" in nothing.stderr


def test_a_container_is_no_different(docker_cli: CommandLine) -> None:
    key = f"files-{os.getpid()}"
    put(docker_cli, key, data="inside")
    assert docker_cli("run", "-s", key, "-c", "print(open('data').read())").stdout == "inside\n"
    assert docker_cli("sessions", "stop", key, "--yes").returncode == 0
    assert docker_cli("files", key, "get", "data", "-o", "-").stdout == "inside"
    assert docker_cli("sessions", "stop", key, "--purge", "--yes").returncode == 0


def test_all_that_there_is(alone: CommandLine) -> None:
    assert alone("run", "-s", "key", "-c", "import os; os.mkdir('a'); open('a/b', 'w').write('1')").returncode == 0
    assert alone("run", "-s", "key", "-c", "open('c', 'w').write('2')").returncode == 0
    done = alone("files", "key", "get", ".", "home")
    assert done.returncode == 0, done.stderr
    home = alone.folder / "home"
    assert {path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()} == {"a/b", "c"}


def test_of_code_that_failed_its_own_exit_code_stays(cli: CommandLine) -> None:
    done = cli("run", "--get", "*.none", "results", "-c", "1/0")
    assert done.returncode == 1
    assert "Nothing in the session matches" in done.stderr
