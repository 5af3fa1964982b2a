"""Settings: their defaults, where they come from, and what a wrong one is answered with."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest
from docker.api.container import ContainerApiMixin
from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS
from docker.types import HostConfig
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from session_manager.container_options import ContainerOptions
from session_manager.errors import SettingsError
from session_manager.settings import Limits, Settings, settings_hash
from session_manager.settings_refused import REFUSED_OPTIONS, UNSAFE
from session_manager.settings_section import parse_size
from session_manager.unsafe_options import UnsafeOptions

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file of the person who runs the tests is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def refusal(**values: object) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings(**values)
    return str(caught.value)


def yaml_refusal(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        ContainerOptions.from_yaml(text)
    return str(caught.value)


# -- values --


def test_the_defaults_are_safe_and_complete() -> None:
    settings = Settings()
    assert settings.model_dump() == {
        "engine": "docker",
        "docker_host": None,
        "image": None,
        "namespace": "docker-interpreter",
        "container": {
            "mem_limit": 1024 * MIB,
            "nano_cpus": 1_000_000_000,
            "pids_limit": 256,
            "shm_size": 64 * MIB,
            "tmp_size": 256 * MIB,
            "home_size": 64 * MIB,
            "file_size": 16384 * MIB,
            "network": "none",
            "network_name": "bridge",
            "network_disabled": True,
            "allowed_hosts": (),
            "private_networks": (),
            "extra_hosts": {},
            "dns": (),
            "working_dir": "/mnt",
            "environment": {},
            "hostname": "sandbox",
            "runtime": None,
            "volumes": (),
            "device_requests": (),
            "allow_unsafe_options": False,
            "unsafe": {},
        },
        "limits": {
            "timeout": 120.0,
            "interrupt_grace": 2.0,
            "start_timeout": 60.0,
            "idle_timeout": 3600.0,
            "idle_margin": 60.0,
            "orphan_grace": 120.0,
            "longest_life": None,
            "longest_cell": 86_400.0,
            "sessions": None,
            "sessions_per_owner": None,
            "when_full": "reap",
            "workspace_bytes": 4096 * MIB,
            "replay_bytes": 4 * MIB,
            "journal_bytes": 64 * MIB,
            "output_bytes": 16 * MIB,
            "text_chars": 20_000,
            "message_bytes": 128 * MIB,
            "file_bytes": 8192 * MIB,
            "files": 20_000,
        },
        "saving": {"enabled": True, "timeout": 30.0, "max_bytes": 512 * MIB},
        "workspaces": {"keep_unused": 2_592_000.0, "total_bytes": None},
        "pool": {"size": 0, "preload": ("numpy", "pandas", "matplotlib.pyplot")},
        "state_dir": None,
    }


def test_settings_survive_json() -> None:
    settings = Settings(state_dir=Path("/x"), container={"environment": {"A": "1"}, "mem_limit": "2g"})
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_settings_can_t_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().image = "other"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("1b", 1),
        ("512k", 512 << 10),
        ("64m", 64 * MIB),
        ("64M", 64 * MIB),
        ("1.5g", 1536 * MIB),
        ("2 GiB", 2048 * MIB),
        ("2gb", 2048 * MIB),
        ("1t", 1 << 40),
        (" 7 ", 7),
    ],
)
def test_sizes_are_read_as_docker_reads_them(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1m", "1x", "1mm", "1e9", "0x10", "٣m", 1.5, True, None, [1], "9" * 99])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="a size"):
        parse_size(text)


def test_a_cell_may_run_without_limit() -> None:
    assert Limits(timeout=None).timeout is None


def test_environment_values_become_text() -> None:
    assert ContainerOptions(environment={"A": 1, "B": 0.5, "C": ""}).environment == {
        "A": "1",
        "B": "0.5",
        "C": "",
    }


# -- what is refused --


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"imgae": "x"}, "unknown setting 'imgae': did you mean 'image'?"),
        (
            {"container": {"mem_limt": 1}},
            "unknown setting 'mem_limt' in container: did you mean 'mem_limit'?",
        ),
        ({"limits": {"time_out": 1}}, "unknown setting 'time_out' in limits: did you mean 'timeout'?"),
        ({"mem_limit": "1g"}, "unknown setting 'mem_limit': did you mean 'container.mem_limit'?"),
        (
            {"zzz": 1},
            "unknown setting 'zzz': known are engine, docker_host, image, namespace, container, limits, saving,"
            " workspaces, pool, state_dir",
        ),
        ({"engine": "podman"}, "engine is 'podman', but should be 'docker' or 'process'"),
        ({"container": 5}, "container is 5, but should be a mapping of settings"),
        ({"container": {"mem_limit": "1m"}}, "container.mem_limit is '1m', but should be at least 64m"),
        ({"limits": {"timeout": 0}}, "limits.timeout is 0, but should be greater than 0"),
        ({"limits": {"timeout": True}}, "limits.timeout is True, but should not be true or false"),
        (
            {"namespace": "A b"},
            "namespace is 'A b', but should be up to 41 lower-case letters, digits, dots, dashes"
            " and underscores, a letter or digit first",
        ),
        ({"state_dir": "x"}, "state_dir is 'x', but should be an absolute path"),
        ({"docker_host": "tcp://user:secret@a b"}, "docker_host should be an address without spaces"),
    ],
)
def test_the_error_names_the_setting_and_what_is_wrong(values: dict[str, object], message: str) -> None:
    assert refusal(**values) == f"{message} (in code)"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limits", {"timeout": float("nan")}),
        ("limits", {"timeout": float("inf")}),
        ("limits", {"timeout": 10**9}),
        ("limits", {"interrupt_grace": 0}),
        ("limits", {"idle_timeout": 0}),
        ("limits", {"output_bytes": "1k"}),
        ("limits", {"message_bytes": "2g"}),
        ("limits", {"text_chars": 199}),
        ("container", {"nano_cpus": 1}),
        ("container", {"pids_limit": 4}),
        ("container", {"mem_limit": "9999999t"}),
        ("container", {"shm_size": 0}),
        ("container", {"working_dir": "mnt"}),
        ("container", {"working_dir": "/"}),
        ("container", {"working_dir": "/proc/self"}),
        ("container", {"working_dir": "/mnt/../etc"}),
        ("container", {"working_dir": "/mnt:ro"}),
        ("container", {"hostname": "a.b c"}),
        ("container", {"runtime": "../x"}),
        ("container", {"environment": {"A=B": "x"}}),
        ("container", {"environment": {"A": "x\0y"}}),
        ("container", {"environment": {"A": True}}),
        ("container", {"environment": {"A": "x" * 70_000}}),
        ("container", {"environment": ["A=1"]}),
        ("image", "-rf"),
        ("image", "a b"),
        ("image", ""),
        ("namespace", "-a"),
        ("namespace", "a" * 42),
    ],
)
def test_values_out_of_bounds_are_refused(name: str, value: object) -> None:
    assert refusal(**{name: value}).startswith(name)


@pytest.mark.parametrize(
    "option",
    [
        "image", "command", "entrypoint", "name", "detach", "stdin_open", "tty", "auto_remove",
        "remove", "labels", "user", "volumes_from", "mounts", "privileged", "cap_add",
        "cap_drop", "devices", "pid_mode", "ipc_mode", "network_mode", "userns_mode",
        "uts_mode", "security_opt", "cgroup_parent", "group_add", "read_only", "tmpfs", "ports",
        "init", "ulimits", "sysctls", "dns_opt", "log_config",
    ],
)  # fmt: skip
def test_options_that_would_weaken_the_sandbox_are_refused_with_a_reason(option: str) -> None:
    message = refusal(container={option: True})
    assert message.startswith(f"option '{option}' can't be set in container: ")
    assert len(message) > len(f"option '{option}' can't be set in container:  (in code)") + 10


def test_each_word_of_docker_py_s_is_an_option_or_is_refused_with_a_reason() -> None:
    made_by = (ContainerApiMixin.create_container, HostConfig.__init__)
    names = {name for made in made_by for name in inspect.signature(made).parameters} - {"self"}
    names |= {*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS}
    assert len(names) > 80
    assert names - REFUSED_OPTIONS.keys() - ContainerOptions.model_fields.keys() == set()
    assert REFUSED_OPTIONS.keys() & ContainerOptions.model_fields.keys() == set()


UNSAFE_YAML = "allow_unsafe_options: true\nprivileged: true\ncap_add: [SYS_ADMIN]\nuser: '0'\nmem_limit: 2g\n"


def test_what_takes_the_sandbox_away_is_let_through_where_that_is_said_and_said_aloud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        options = ContainerOptions.from_yaml(UNSAFE_YAML)
    assert options.unsafe == {"privileged": True, "cap_add": ["SYS_ADMIN"], "user": "0:0"}
    assert options.mem_limit == 2 << 30
    (record,) = caplog.records
    assert (
        "CODE IN SESSIONS MAY LEAVE ITS CONTAINER" in record.getMessage() and "privileged=True" in record.getMessage()
    )
    again = Settings(container=options.model_dump(exclude_unset=True))
    assert again.container == options
    assert settings_hash(again) != settings_hash(Settings(container={"mem_limit": "2g"}))


@pytest.mark.parametrize("allowed", [False, None, "yes", 1])
def test_unsafe_options_are_refused_where_that_is_not_said(allowed: object) -> None:
    message = refusal(container={"allow_unsafe_options": allowed, "privileged": True})
    assert "option 'privileged' can't be set" in message
    assert "allow_unsafe_options: true beside it lets it through" in refusal(container={"privileged": True})
    assert "unsafe" in refusal(container={"allow_unsafe_options": allowed, "unsafe": {"privileged": True}})


def test_only_what_is_unsafe_is_let_through() -> None:
    assert "auto_remove" in refusal(container={"allow_unsafe_options": True, "auto_remove": False})
    assert "unsafe" in refusal(container={"allow_unsafe_options": True, "unsafe": {"auto_remove": False}})


UNSAFE_VALUES: dict[str, tuple[object, list[object]]] = {
    "binds": (["/etc:/mnt/etc:ro"], ["/etc:/mnt/etc", [5], ["etc:/mnt"], ["/a\0b:/c"], ["/a:/b"] * 101]),
    "cap_add": (["SYS_PTRACE"], ["SYS_PTRACE", [""], ["A B"], [None], {"SYS_PTRACE": 1}]),
    "cgroup_parent": ("/machine.slice", ["", "a b", 5, ["a"]]),
    "device_cgroup_rules": (["c 188:* rwm"], ["c 188:* rwm", ["x 1:1 r"], ["c 1:1"]]),
    "devices": (["/dev/fuse:/dev/fuse:rwm"], ["/dev/fuse", ["fuse"], [{"PathOnHost": "/dev/fuse"}]]),
    "group_add": ([44, "video"], [44, [True], [None], [[]]]),
    "ipc_mode": ("host", ["elsewhere", "container:", True]),
    "pid_mode": ("container:other", ["private", "container:a b", 1]),
    "privileged": (True, ["maybe", 1, None]),
    "security_opt": (["seccomp=unconfined"], ["seccomp=unconfined", [5], [""]]),
    "sysctls": ({"net.core.somaxconn": 1024}, [["a=1"], {"a b": "1"}, {"a": [1]}, {1: "1"}]),
    "user": (0, [1000, "1000:1000", "me", True, None, "0:1000"]),
    "userns_mode": ("host", ["private", True]),
    "uts_mode": ("host", ["private", ""]),
    "volumes_from": (["other:ro"], ["other", [""], ["a b"]]),
}


def test_unsafe_options_have_types_and_bounds_too() -> None:
    assert UNSAFE == UnsafeOptions.__annotations__.keys() == UNSAFE_VALUES.keys()
    for name, (value, wrong) in UNSAFE_VALUES.items():
        allowed = {"allow_unsafe_options": True, "cap_add": ["DAC_OVERRIDE"]}
        options = ContainerOptions(**{**allowed, name: value})
        assert ContainerOptions(**options.model_dump()) == options
        for one in wrong:
            assert refusal(container={**allowed, name: one}).startswith(f"container.{name}"), (name, one)


def test_an_unsafe_option_that_is_wrong_has_a_place_as_well() -> None:
    message = yaml_refusal("allow_unsafe_options: true\nmem_limit: 1g\npid_mode: everywhere\n")
    assert message.startswith("container.pid_mode is 'everywhere', but should be host or ")
    assert message.endswith(" (in the YAML text, line 3, column 1)")


def test_root_needs_what_lets_it_open_the_session_s_files() -> None:
    assert "cap_add: [DAC_OVERRIDE]" in refusal(container={"allow_unsafe_options": True, "user": 0})
    for more in ({"privileged": True}, {"cap_add": ["all"]}, {"cap_add": ["CAP_DAC_OVERRIDE"]}):
        assert ContainerOptions(allow_unsafe_options=True, user="root", **more).unsafe["user"] == "0:0"


def test_gpus_are_asked_for_in_docker_py_s_words() -> None:
    options = ContainerOptions.from_yaml("device_requests: [{driver: nvidia, count: -1}]")
    assert options.device_requests[0].model_dump() == {
        "driver": "nvidia", "count": -1, "device_ids": (), "capabilities": (("gpu",),),
    }  # fmt: skip
    for wrong in ({"count": "many"}, {"drivre": "x"}, {"device_ids": ["a b"]}):
        assert "device_requests" in refusal(container={"device_requests": [wrong]})


def test_each_section_says_the_same_when_made_by_itself() -> None:
    with pytest.raises(SettingsError) as caught:
        ContainerOptions(mem_limt=1)
    assert str(caught.value) == refusal(container={"mem_limt": 1})


def test_several_problems_are_told_together() -> None:
    message = refusal(limits={name: 1 for name in "abcdefgh"}, engine="x")
    assert message.startswith("engine is 'x'")
    assert message.count("; ") == 5
    assert message.endswith("; and 4 more")


def test_a_number_that_python_would_not_write_is_out_of_bounds() -> None:
    for name in ("mem_limit", "pids_limit", "hostname", "allow_unsafe_options"):
        assert refusal(container={name: 1 << 20_000}).startswith(f"container.{name} ")


def test_secrets_are_not_repeated() -> None:
    assert "hunter2" not in refusal(container={"environment": {"A": "hunter2\0"}})


# -- YAML --


def test_container_options_from_yaml() -> None:
    options = ContainerOptions.from_yaml("# a comment\nmem_limit: 2g\npids_limit: 512\nenvironment:\n  A: 1\n")
    assert options == ContainerOptions(mem_limit="2g", pids_limit=512, environment={"A": "1"})
    assert ContainerOptions.from_yaml("") == ContainerOptions()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mem_limit: 2g\nmem_limt: 1", "did you mean 'mem_limit'? (in the YAML text, line 2, column 1)"),
        ("environment:\n  A: [1]", "give A as text: put it in quotes (in the YAML text, line 1, column 1)"),
        ("a: b: c", "the YAML text, line 1, column 5 can't be read as settings"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1 can't be read as settings: 'a' is there twice."),
        ("environment:\n  A: 1\n  A: 2", "line 3, column 3 can't be read as settings: 'A' is there twice."),
        ("a: &x 1\nb: *x", "line 1, column 4 can't be read as settings: anchors"),
        ("b: *x", "line 1, column 4 can't be read as settings: aliases"),
        ("a: " + "[" * 20 + "]" * 20, "nested too deeply"),
        ("- a", "it should be a mapping of settings"),
        ("just text", "it should be a mapping of settings"),
        ("1: a", "a setting's name should be plain text"),
        ("yes: a", "a setting's name should be plain text"),
        ("? [a]\n: b", "a setting's name should be plain text"),
        ("<<: {mem_limit: 1g}", "a setting's name should be plain text"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor for the tag"),
        ("a: 1\n---\nb: 1", "but found another document"),
        ("a: " + "9" * 5000, "a number or date in it is not valid"),
        ("mem_limit: 0x" + "f" * 5000, "line 1, column 12 can't be read as settings: a number of so many digits"),
        ("pids_limit: " + "1:" * 5000 + "1", "line 1, column 13 can't be read as settings: a number of so many digits"),
        ("a: 2001-99-99", "a number or date in it is not valid"),
        ("a: \0", "special characters are not allowed"),
        ("a: " + "x" * 66_000, "larger than 65536 bytes"),
        ("a: 'unclosed", "can't be read as settings"),
    ],
)
def test_yaml_is_read_within_bounds_and_errors_say_where(text: str, words: str) -> None:
    assert words in yaml_refusal(text)


@given(st.text(alphabet="ab:-[]{}&*!?|>'\"#% \n\t,1", max_size=60))
def test_any_text_is_options_or_a_settings_error(text: str) -> None:
    try:
        ContainerOptions.from_yaml(text)
    except SettingsError as error:
        assert "YAML text" in str(error)


# -- sources --


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "image: example\ncontainer: {mem_limit: 2g, pids_limit: 99}\nlimits: {timeout: 1, text_chars: 500}\n"
    )
    env = {
        "DOCKER_INTERPRETER_LIMITS__TIMEOUT": "2.5",
        "DOCKER_INTERPRETER_CONTAINER__PIDS_LIMIT": "100",
        "DOCKER_INTERPRETER_NAMESPACE": "from-env",
        "UNRELATED": "x",
    }
    settings = Settings.load(file, env, namespace="from-code", container={"pids_limit": 101})
    assert settings.image == "example"
    assert settings.namespace == "from-code"
    assert settings.limits == Limits(timeout=2.5, text_chars=500)
    assert settings.container == ContainerOptions(mem_limit="2g", pids_limit=101)


def test_a_section_given_as_an_object_replaces_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("limits: {timeout: 1, text_chars: 500}\n")
    assert Settings.load(file, {}, limits=Limits(timeout=3)).limits == Limits(timeout=3)


def test_the_file_is_searched_for_in_order(tmp_path: Path) -> None:
    assert Settings.load(env={"HOME": str(tmp_path)}).image is None
    home = tmp_path / ".config" / "docker-interpreter"
    home.mkdir(parents=True)
    (home / "config.yaml").write_text("image: home")
    assert Settings.load(env={"HOME": str(tmp_path)}).image == "home"
    Path("docker-interpreter.yaml").write_text("image: here")
    assert Settings.load(env={"HOME": str(tmp_path)}).image == "here"
    named = tmp_path / "named.yaml"
    named.write_text("image: named")
    env = {"HOME": str(tmp_path), "DOCKER_INTERPRETER_CONFIG": str(named)}
    assert Settings.load(env=env).image == "named"
    given_file = tmp_path / "given.yaml"
    given_file.write_text("image: given")
    assert Settings.load(given_file, env).image == "given"


def test_variables_become_settings() -> None:
    env = {
        "DOCKER_INTERPRETER_LIMITS__TIMEOUT": "null",
        "DOCKER_INTERPRETER_LIMITS": "{text_chars: 500, timeout: 7}",
        "DOCKER_INTERPRETER_CONTAINER__ENVIRONMENT__Mixed_Case": "1",
        "DOCKER_INTERPRETER_CONTAINER__NETWORK_DISABLED": "true",
        "DOCKER_INTERPRETER_CONTAINER__MEM_LIMIT": "2g",
        "DOCKER_INTERPRETER_IMAGE": "",
    }
    settings = Settings.load(env=env)
    assert settings.limits == Limits(text_chars=500, timeout=None)
    assert settings.container == ContainerOptions(environment={"Mixed_Case": "1"}, mem_limit="2g")
    assert settings.image is None


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"DOCKER_INTERPRETER_IMGAE": "x"},
            "unknown setting 'imgae': did you mean 'image'? (in environment variable DOCKER_INTERPRETER_IMGAE)",
        ),
        (
            {"DOCKER_INTERPRETER_LIMITS__TIMEOUT": "soon"},
            "limits.timeout is 'soon', but should be a valid number, unable to parse string as a number "
            "(in environment variable DOCKER_INTERPRETER_LIMITS__TIMEOUT)",
        ),
        (
            {"DOCKER_INTERPRETER_LIMITS": "soon"},
            "limits is 'soon', but should be a mapping of settings (in environment variable DOCKER_INTERPRETER_LIMITS)",
        ),
        (
            {"DOCKER_INTERPRETER_IMAGE__X": "soon"},
            "image should be a valid string (in environment variable DOCKER_INTERPRETER_IMAGE__X)",
        ),
        (
            {"DOCKER_INTERPRETER_LIMITS": "{timeout: [}"},
            "environment variable DOCKER_INTERPRETER_LIMITS, line 1, column 12 can't be read as settings: "
            "while parsing a flow node, expected the node content, but found '}'.",
        ),
    ],
)
def test_errors_name_the_variable(env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(env=env)
    assert str(caught.value) == message


def test_errors_name_the_file_with_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("image: example\nlimits:\n  timeout: -1\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load(file, {}, image="x")
    assert str(caught.value) == (f"limits.timeout is -1, but should be greater than 0 (in {file}, line 3, column 3)")


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no\.yaml can't be read: No such file or directory"):
        Settings.load(tmp_path / "no.yaml", {})
    with pytest.raises(SettingsError, match=r"no\.yaml can't be read"):
        Settings.load(env={"DOCKER_INTERPRETER_CONFIG": str(tmp_path / "no.yaml")})
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SettingsError, match="it is not UTF-8 text"):
        Settings.load(binary, {})
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (1 << 20))
    with pytest.raises(SettingsError, match="larger than 65536 bytes"):
        Settings.load(large, {})


def test_loading_changes_none_of_what_it_was_given(tmp_path: Path) -> None:
    overrides = {"environment": {"A": "1"}}
    Settings.load(env={"DOCKER_INTERPRETER_CONTAINER__ENVIRONMENT__B": "2"}, container=overrides)
    assert overrides == {"environment": {"A": "1"}}


# -- derived --


def test_the_state_directory_follows_the_xdg_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(state_dir=tmp_path).state_directory() == tmp_path
    assert Settings(state_dir="~/x").state_dir == tmp_path / "home" / "x"
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert Settings().state_directory() == Path("/xdg/docker-interpreter")
    for ignored in ("relative", ""):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        assert Settings().state_directory() == tmp_path / "home/.local/state/docker-interpreter"


def test_the_hash_changes_with_what_a_container_is_made_from_and_nothing_else() -> None:
    usual = settings_hash(Settings())
    assert len(usual) == 12
    assert int(usual, 16) >= 0
    assert usual == settings_hash(Settings(limits={"timeout": 5}, namespace="n", container={"mem_limit": "1024m"}))
    different = [
        Settings(image="example"),
        Settings(container={"mem_limit": "2g"}),
        Settings(container={"environment": {"A": "1"}}),
        Settings(limits={"idle_timeout": 60}),
    ]
    assert len({usual, *map(settings_hash, different)}) == 5
