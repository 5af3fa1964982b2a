"""Which folders of the host an administrator can bind, as docker-py takes them, and which nobody should."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import cast

import docker
import pytest
from docker.errors import APIError

from session_manager import ContainerOptions, SettingsError, bound_folders
from session_manager.bound_folders import BoundFolder
from session_manager.engine.docker_binds import bind_mounts
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


@pytest.mark.parametrize("source", ["/var/spool", "/var/lib", "/usr/local/bin", "/lib64", "/root", "/Users"])
def test_what_holds_it_and_where_programs_are_is_refused_too(source: str) -> None:
    assert "should not bind" in refusal([f"{source}:/mnt/data:ro"])


@pytest.mark.parametrize("source", ["/home/me", "/home/me/.ssh", "/root/.ssh/keys", "/srv/me/.docker", "/Users/me"])
def test_homes_and_keys_of_people_are_refused(source: str) -> None:
    assert "should not bind" in refusal([f"{source}:/mnt/data:ro"])


@pytest.mark.parametrize(
    "source", ["/home/me/data", "/srv", "/opt/models", "/usr/share/doc", "/root/data", "/etcetera"]
)
def test_other_folders_are_bound(source: str) -> None:
    assert volumes(f"{source}:/mnt/data:ro") == (f"{source}:/mnt/data:ro",)


def test_what_is_a_link_on_this_machine_counts_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk/docker").mkdir(parents=True)
    (tmp_path / "docker").symlink_to("disk/docker")
    monkeypatch.setattr(bound_folders, "_NEVER", frozenset((str(tmp_path / "docker"),)))
    for source in ("disk/docker", "disk/docker/volumes", "disk"):
        assert "should not bind" in refusal([f"{tmp_path}/{source}:/mnt/data:ro"])


def test_a_folder_below_one_that_sessions_write_to_is_refused(tmp_path: Path) -> None:
    both = [f"{tmp_path}:/mnt/a:rw", f"{tmp_path}/below:/mnt/b:ro"]
    for given in (both, both[::-1]):
        assert "could put a link in its place" in refusal(given)
    volumes(f"{tmp_path}:/mnt/a:ro", f"{tmp_path}/below:/mnt/b:rw")
    volumes(f"{tmp_path}/a:/mnt/a:rw", f"{tmp_path}/ab:/mnt/b:rw")
    (tmp_path / "link").symlink_to("real")
    assert "could put a link" in refusal([f"{tmp_path}/link:/mnt/a", f"{tmp_path}/real/below:/mnt/b:ro"])


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


@pytest.mark.parametrize("place", ["run", "home"])
def test_a_folder_above_an_engine_s_socket_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = tmp_path / "engine" / (".docker/run/docker.sock" if place == "home" else "deep/below/engine")
    path.parent.mkdir(parents=True)
    monkeypatch.chdir(path.parent)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(path.name)
        volumes(f"{tmp_path}/engine:/mnt/data:ro")
        if place == "home":
            monkeypatch.setenv("HOME", str(tmp_path / "engine"))
        else:
            monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        assert "not in a sandbox any more" in refusal([f"{tmp_path}/engine:/mnt/data:ro"])


class InfoOf:
    """An engine that says where its files are, or is not asked."""

    def __init__(self, root: str | None) -> None:
        self.root = root

    def info(self) -> dict[str, str]:
        """What ``docker info`` shows."""
        if self.root is None:
            raise APIError("403: does not allow GET /info")
        return {"DockerRootDir": self.root}


def bound_on(root: str | None, address: str, source: str) -> list[object]:
    options = ContainerOptions(volumes=[f"{source}:/mnt/data:ro"])
    return list(bind_mounts(cast(docker.APIClient, InfoOf(root)), address, options))


@pytest.mark.parametrize("source", ["/data", "/data/engine", "/data/engine/volumes/x"])
def test_the_engine_s_own_files_are_refused_wherever_it_keeps_them(source: str) -> None:
    with pytest.raises(SettingsError, match="the engine's own files are in /data/engine"):
        bound_on("/data/engine", "tcp://elsewhere:2376", source)


def test_the_engine_s_own_socket_is_refused_wherever_it_listens() -> None:
    with pytest.raises(SettingsError, match="the engine listens at /srv/engine/x"):
        bound_on("/var/lib/docker", "unix:///srv/engine/x", "/srv")


@pytest.mark.parametrize("root", ["/data/engine", None])
def test_other_folders_are_bound_whether_or_not_the_engine_says_where_its_files_are(root: str | None) -> None:
    (mount,) = bound_on(root, "unix:///srv/engine/x", "/data/engineering")
    assert mount == {"Target": "/mnt/data", "Source": "/data/engineering", "Type": "bind", "ReadOnly": True}


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
