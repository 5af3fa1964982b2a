"""Which folders of the host an administrator can bind, as docker-py takes them, and which nobody should."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest

from session_manager import ContainerOptions, SettingsError
from session_manager.bound_folders import BoundFolder
from session_manager.settings import Settings, settings_hash


def volumes(*given: object) -> tuple[str, ...]:
    return ContainerOptions(volumes=list(given)).volumes


def refusal(given: object, **others: object) -> str:
    with pytest.raises(SettingsError) as caught:
        ContainerOptions(volumes=given, **others)
    return str(caught.value)


def test_nothing_is_bound_by_default() -> None:
    assert ContainerOptions().volumes == ()


def test_the_yaml_is_docker_pys() -> None:
    listed = ContainerOptions.from_yaml('volumes: ["/srv/data:/mnt/data:ro", "/srv/out:/mnt/out"]')
    mapped = ContainerOptions.from_yaml(
        "volumes:\n  /srv/data: {bind: /mnt/data, mode: ro}\n  /srv/out: {bind: /mnt/out}\n"
    )
    assert listed.volumes == mapped.volumes == ("/srv/data:/mnt/data:ro", "/srv/out:/mnt/out:rw")
    assert BoundFolder.parse(listed.volumes[0]) == ("/srv/data", "/mnt/data", "ro")


def test_what_is_read_is_read_again_as_it_is() -> None:
    once = ContainerOptions(volumes=["/srv/my data:/data/"])
    assert once.volumes == ("/srv/my data:/data:rw",)
    assert ContainerOptions.model_validate_json(once.model_dump_json()) == once


@pytest.mark.parametrize(
    "given",
    [
        "/srv/data",
        "/srv/data:",
        "/srv/data:/mnt/data:z",
        "/srv/data:/mnt/data:ro:rw",
        ":/mnt/data",
        "data:/mnt/data",
        "./data:/mnt/data",
        "/srv/../etc:/mnt/data",
        "/srv/data:mnt/data",
        "/srv/data:/mnt/../etc",
        "/srv/data:/etc/x",
        "/srv/data:/opt/venv",
        "/srv/data:/mnt/a b",
        7,
    ],
)
def test_what_is_no_folder_is_refused(given: object) -> None:
    assert refusal([given]).startswith("container")


@pytest.mark.parametrize("given", ["/srv/data:/mnt/data", {"/srv": "/mnt/x"}, {"/srv": {"mode": "ro"}}, 5, True])
def test_what_docker_py_would_not_take_is_refused(given: object) -> None:
    assert "container.volumes" in refusal(given)


@pytest.mark.parametrize("source", ["/", "//", "/var", "/proc/1", "/dev/shm", "/etc", "/run", "/var/run/docker.sock"])
def test_what_would_hand_the_host_over_is_refused(source: str) -> None:
    assert "should not bind" in refusal([f"{source}:/mnt/data:ro"])


@pytest.mark.parametrize(
    "source", ["/run/user/1000", "/var/run/x", "/etc/ssl", "/var/lib/docker/volumes", "/boot/efi", "/home", "/usr/bin"]
)
def test_what_lies_below_it_is_refused_too(source: str) -> None:
    assert "should not bind" in refusal([f"{source}:/mnt/data:ro"])


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "innocent").symlink_to("/etc")
    (tmp_path / "folder").mkdir()
    (tmp_path / "fine").symlink_to("folder")
    assert f"should not bind {tmp_path}/innocent, which is /etc" in refusal([f"{tmp_path}/innocent:/mnt/data:ro"])
    assert f"{tmp_path}/innocent/ssl, which is /etc/ssl" in refusal([f"{tmp_path}/innocent/ssl:/mnt/data:ro"])
    assert volumes(f"{tmp_path}/fine:/mnt/data:ro") == (f"{tmp_path}/fine:/mnt/data:ro",)


def test_a_folder_with_an_engine_s_socket_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch()
    volumes(f"{tmp_path}:/mnt/data:ro")
    (tmp_path / "docker.sock").unlink()
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(tmp_path / "docker.sock"))
        assert "not in a sandbox any more" in refusal([f"{tmp_path}:/mnt/data:ro"])
        (tmp_path / "alias").symlink_to("docker.sock")
        assert "not in a sandbox any more" in refusal([f"{tmp_path}/alias:/mnt/data"])


@pytest.mark.parametrize("target", ["/mnt", "/mnt/"])
def test_the_workspace_can_not_be_hidden(target: str) -> None:
    assert "would hide the session's own files" in refusal([f"/srv/data:{target}"])


def test_a_folder_above_the_workspace_would_hide_it_too() -> None:
    assert "would hide" in refusal(["/srv/data:/mnt/a"], working_dir="/mnt/a/b")


def test_two_folders_in_one_place_are_refused() -> None:
    assert "one folder to each place" in refusal(["/srv/a:/mnt/x", "/srv/b:/mnt/x:ro"])


def test_writing_to_the_host_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        volumes("/srv/a:/mnt/a:ro")
        assert not caplog.records
        volumes("/srv/a:/mnt/a")
    assert ["/srv/a" in record.getMessage() for record in caplog.records] == [True]


def test_containers_with_other_folders_are_other_containers() -> None:
    assert settings_hash(Settings()) != settings_hash(Settings(container={"volumes": ["/srv/a:/mnt/a:ro"]}))
