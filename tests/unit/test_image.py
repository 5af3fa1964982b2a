"""Names, contexts and progress of images, without an engine."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError
from urllib3.exceptions import ProtocolError

from session_manager.errors import ImageBuildFailed
from session_manager.images import (
    SESSION_IMAGES,
    ImageKind,
    base,
    build,
    context,
    ensure_image,
    find_image,
    image_reference,
    remove_outdated_images,
)

KINDS = list(SESSION_IMAGES)


class FakeEngine:
    """An engine that has images, each with the base that it names, and can do nothing with them."""

    def __init__(self, images: dict[str, str], in_use: Sequence[str] = ()) -> None:
        self.labelled = images
        self.in_use = in_use

    def images(self, name: str) -> list[dict[str, Any]]:
        return [
            {"RepoTags": [reference], "Labels": {build.BASE_LABEL: made_on}, "Created": created}
            for created, (reference, made_on) in enumerate(self.labelled.items())
            if reference.startswith(f"{name}:")
        ]

    def remove_image(self, reference: str) -> None:
        if reference in self.in_use:
            response = requests.Response()
            response.status_code = 409
            raise APIError("conflict", response)
        del self.labelled[reference]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the images' files that a test may change."""
    shutil.copytree(context.ROOT / "kernel_image", tmp_path / "kernel_image")
    shutil.copy(context.ROOT / "Dockerfile.python.example", tmp_path)
    monkeypatch.setattr(context, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No certificates, proxies or state of the machine that the tests run on."""
    for variable in (*context.CA_VARIABLES, *build.PROXY_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "local").mkdir()
    monkeypatch.setattr(context, "LOCAL_CA_DIRECTORY", tmp_path / "local")


def test_reference_has_the_documented_form() -> None:
    assert image_reference(ImageKind.DEFAULT).startswith("docker-interpreter/kernel:")
    assert image_reference(ImageKind.EXAMPLE).startswith("docker-interpreter/data:")
    for kind in KINDS:
        assert len(image_reference(kind).partition(":")[2]) == 12


@pytest.mark.parametrize("name", ["Dockerfile", "requirements.txt", "supervisor.py", "relay.py", "launch_kernel.py"])
def test_a_change_in_any_file_of_the_default_image_names_both_images_anew(tree: Path, name: str) -> None:
    before = [image_reference(kind) for kind in KINDS]
    path = tree / "kernel_image" / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert all(old != new for old, new in zip(before, map(image_reference, KINDS), strict=True))


def test_a_change_in_the_example_leaves_the_default_image_alone(tree: Path) -> None:
    default, example = map(image_reference, KINDS)
    with (tree / "Dockerfile.python.example").open("a") as file:
        file.write("# changed\n")
    assert image_reference(ImageKind.DEFAULT) == default
    assert image_reference(ImageKind.EXAMPLE) != example


def test_another_base_makes_another_image() -> None:
    for kind in KINDS:
        assert image_reference(kind, "python:3.12-slim") != image_reference(kind, "debian:bookworm")


def test_what_does_not_go_in_does_not_count(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [image_reference(kind) for kind in KINDS]
    (tree / "kernel_image" / "FRAMES.md").write_text("other words")
    (tree / "kernel_image" / "__pycache__").mkdir(exist_ok=True)
    (tree / "kernel_image" / "__pycache__" / "relay.cpython-311.pyc").write_bytes(b"")
    bundle = tree / "ca.pem"
    bundle.write_text("a certificate")
    monkeypatch.setenv("PIP_CERT", str(bundle))
    assert [image_reference(kind) for kind in KINDS] == before


def test_an_installed_package_keeps_the_example_with_the_other_files(tree: Path) -> None:
    before = image_reference(ImageKind.EXAMPLE)
    (tree / "Dockerfile.python.example").rename(tree / "kernel_image" / "Dockerfile.python.example")
    assert image_reference(ImageKind.EXAMPLE) == before


def test_missing_files_are_said_to_be_missing(tree: Path) -> None:
    (tree / "kernel_image" / "requirements.txt").unlink()
    with pytest.raises(ImageBuildFailed, match=r"requirements\.txt"):
        image_reference(ImageKind.DEFAULT)


def test_equal_files_make_equal_contexts() -> None:
    one = context.build_context({"b": b"2", "a": b"1"})
    other = context.build_context({"a": b"1", "b": b"2"})
    assert one.getvalue() == other.getvalue()
    with tarfile.open(fileobj=one) as archive:
        assert archive.getnames() == ["a", "b"]
        member = archive.extractfile("b")
        assert member is not None
        assert member.read() == b"2"


def test_a_host_without_certificates_of_its_own_passes_none() -> None:
    assert context.host_ca_bundle() == ("", b"")


def test_the_most_particular_variable_names_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in reversed(context.CA_VARIABLES):
        path = tmp_path / f"{variable}.pem"
        path.write_text(f"of {variable}")
        monkeypatch.setenv(variable, str(path))
        assert context.host_ca_bundle() == (variable, f"of {variable}".encode())


def test_the_system_bundle_counts_once_an_administrator_added_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "ca-certificates.crt"
    system.write_text("all of them")
    monkeypatch.setattr(context, "SYSTEM_CA_BUNDLE", system)
    assert context.host_ca_bundle() == ("", b"")
    (tmp_path / "local" / "proxy.crt").write_text("one of ours")
    assert context.host_ca_bundle() == (str(system), b"all of them")


def test_a_bundle_that_is_missing_or_huge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "none.pem"))
    with pytest.raises(ImageBuildFailed, match="PIP_CERT"):
        context.host_ca_bundle()
    huge = tmp_path / "huge.pem"
    huge.write_bytes(b"x" * (context.CA_BUNDLE_LIMIT + 1))
    monkeypatch.setenv("PIP_CERT", str(huge))
    with pytest.raises(ImageBuildFailed, match="larger than 4 MiB"):
        context.host_ca_bundle()


def test_an_image_on_any_base_is_found_and_an_outdated_one_is_not(tree: Path) -> None:
    engine: Any = FakeEngine({image_reference(kind, "made:here"): "made:here" for kind in KINDS})
    for kind in KINDS:
        assert find_image(engine, kind) == image_reference(kind, "made:here")
        assert find_image(engine, kind, base="made:here") == image_reference(kind, "made:here")
        assert find_image(engine, kind, base="python:3.12-slim") is None
    with (tree / "kernel_image" / "relay.py").open("a") as file:
        file.write("# changed\n")
    assert [find_image(engine, kind) for kind in KINDS] == [None, None]


def test_the_image_built_last_is_taken() -> None:
    references = [image_reference(ImageKind.DEFAULT, made_on) for made_on in ("first:1", "second:2")]
    engine: Any = FakeEngine(dict(zip(references, ("first:1", "second:2"), strict=True)))
    assert find_image(engine, ImageKind.DEFAULT) == references[1]


def test_a_current_image_is_not_built_again() -> None:
    engine: Any = FakeEngine({image_reference(kind): "python:3.12-slim" for kind in KINDS})
    lines: list[str] = []
    for kind in KINDS:
        assert ensure_image(engine, kind, progress=lines.append) == image_reference(kind)
    assert lines == []


def test_outdated_images_are_removed_unless_they_are_in_use() -> None:
    current = image_reference(ImageKind.DEFAULT)
    example = "docker-interpreter/data:000000000000"  # nothing says what the current one would be
    kernels = [f"docker-interpreter/kernel:{digit * 12}" for digit in "012"]
    latest = "docker-interpreter/kernel:latest"
    references = [current, example, *kernels, latest]
    fake = FakeEngine(dict.fromkeys(references, context.DEFAULT_BASE), in_use=kernels[:1])
    engine: Any = fake
    lines: list[str] = []
    assert remove_outdated_images(engine, lines.append) == kernels[1:]
    assert set(fake.labelled) == {current, example, kernels[0], latest}
    assert f"{kernels[0]} is in use" in lines


def test_an_engine_that_goes_away_while_it_builds_is_told_from_a_build_that_fails() -> None:
    class DyingEngine(FakeEngine):
        def inspect_image(self, reference: str) -> dict[str, str]:
            return {"Id": reference}

        def build(self, **_: object) -> Iterator[dict[str, str]]:
            yield {"stream": "Step 1/9 : ARG BASE_IMAGE\n"}
            raise ProtocolError("Connection broken: IncompleteRead(0 bytes read)")

        def prune_images(self, _: object) -> None:
            raise requests.exceptions.ConnectionError("it is away")

    engine: Any = DyingEngine({})
    with pytest.raises(ImageBuildFailed, match="The engine went away, or fell silent, while it built the default"):
        ensure_image(engine, ImageKind.DEFAULT, base="made:here", progress=lambda _: None)


def test_progress_tells_steps_and_packages_and_leaves_the_rest_out() -> None:
    told = [
        "Step 3/13 : COPY --from=build   /opt/venv \t /opt/venv",
        "Collecting numpy==2.4.6",
        "Installing collected packages: six, numpy, pandas",
        "a warning " + "x" * 200,
    ]
    untold = [
        " ---> Running in 49fd",
        "  Downloading numpy.whl (1 MB)",
        "Removing intermediate container 49fd",
    ]
    lines: list[str] = []
    build.follow_build(ImageKind.DEFAULT, [{"stream": f"{line}\n"} for line in told + untold], lines.append)
    assert lines[:3] == [
        "Step 3/13: COPY --from=build /opt/venv /opt/venv",
        "  numpy 2.4.6",
        "  Installing 3 packages",
    ]
    assert len(lines) == 4
    assert len(lines[3]) == build.LINE_LENGTH


def test_a_failed_build_carries_the_end_of_its_output() -> None:
    account = [{"stream": f"\x1b[91mline {number}\x1b[0m\n"} for number in range(100)]
    account.append({"error": "The command '/bin/sh -c make everything' returned a non-zero code: 3"})
    with pytest.raises(ImageBuildFailed) as caught:
        build.follow_build(ImageKind.DEFAULT, account, lambda _: None)
    message = caught.value.message
    assert message.startswith("Building the default image failed: a step ended with exit code 3.")
    assert message.endswith("  line 99")
    assert "line 79\n" not in message
    assert "\x1b" not in message


def test_a_build_that_meets_a_strange_certificate_names_the_remedy() -> None:
    account = [{"stream": "SSLError: CERTIFICATE_VERIFY_FAILED\n"}, {"error": "returned a non-zero code: 1"}]
    with pytest.raises(ImageBuildFailed) as caught:
        build.follow_build(ImageKind.DEFAULT, account, lambda _: None)
    assert caught.value.remedy is not None
    assert "PIP_CERT" in caught.value.remedy


def test_proxies_of_the_environment_reach_the_build_unless_only_this_host_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert build.proxies() == {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "localhost"}


def test_a_pull_counts_layers_and_ends_with_the_registrys_reason() -> None:
    account: list[dict[str, Any]] = [
        {"status": "Pulling from library/python"},
        *({"status": "Pulling fs layer", "id": layer} for layer in "ab"),
        *({"status": "Pull complete", "id": layer} for layer in "ba"),
    ]
    lines: list[str] = []
    base.follow_pull("python:3.12-slim", iter(account), lines.append)
    assert [line.rpartition(": ")[2] for line in lines] == ["1 of 2 layers", "2 of 2 layers"]
    with pytest.raises(ImageBuildFailed, match="too many requests"):
        base.follow_pull("python:3.12-slim", iter([{"error": "toomanyrequests: too many requests"}]), lines.append)
