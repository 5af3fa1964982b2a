"""What every engine does with containers and volumes: names, labels, copies, sizes, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable

import pytest

from benchmarks.sessions import remove_all
from session_manager import ContainerGone, EngineError, ImageMissing, NameTaken, SessionManager, VolumeInUse
from session_manager.container_options import ContainerOptions
from session_manager.engine import ContainerSpec, Engine, make_engine
from session_manager.registry import LABEL_NAMESPACE, SessionName
from session_manager.settings import Settings
from tests.conftest import NAMESPACE, MakeSettings

LABELS = {LABEL_NAMESPACE: NAMESPACE}

MakeSpec = Callable[..., ContainerSpec]


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    """Settings of this test run."""
    return make_settings()


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[Engine]:
    """The engine itself, and nothing left on it afterwards."""
    found = make_engine(settings)
    yield found
    await found.close()
    await remove_all(settings)


@pytest.fixture
async def image(engine: Engine) -> str:
    """The reference of the default image."""
    return await engine.find_image(None, lambda _: None)


@pytest.fixture
def make_spec(image: str) -> MakeSpec:
    """What to create; each with a name and a volume of its own."""

    def make(name: str = "", volume: str = "", **labels: str) -> ContainerSpec:
        name = name or new_name()
        return ContainerSpec(name, image, {**LABELS, **labels}, volume or f"{name}-files", {"idle_timeout": 60})

    return make


def new_name() -> str:
    return f"{NAMESPACE}-{uuid.uuid4().hex}"


async def test_a_container_is_described_alike_alone_and_in_the_list(engine: Engine, make_spec: MakeSpec) -> None:
    spec = make_spec(mine="1")
    await engine.create(spec)
    alone = await engine.inspect(spec.name)
    assert alone is not None
    [listed] = [one for one in await engine.list(LABELS) if one.name == spec.name]
    assert (alone.id, alone.image_id, alone.volumes) == (listed.id, listed.image_id, listed.volumes)
    assert alone.id and alone.volumes == (spec.volume,) and alone.state == "running"
    assert alone.image_id == await engine.image_id(spec.image)
    assert dict(alone.labels).items() >= {**LABELS, "mine": "1"}.items()
    assert abs(alone.created - time.time()) < 60


async def test_a_creation_that_is_cancelled_is_over_when_it_says_so(engine: Engine, make_spec: MakeSpec) -> None:
    # who cleans up afterwards must not be followed by a container that comes late
    for delay in (0.0, 0.002, 0.01, 0.05):
        spec = make_spec()
        creating = asyncio.create_task(engine.create(spec))
        await asyncio.sleep(delay)
        creating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await creating
        made = await engine.inspect(spec.name) is not None
        await asyncio.sleep(0.5)
        assert (await engine.inspect(spec.name) is not None) == made, delay


async def test_a_new_container_of_an_old_name_has_another_id(engine: Engine, make_spec: MakeSpec) -> None:
    spec = make_spec()
    ids = []
    for _ in range(2):
        await engine.create(spec)
        info = await engine.inspect(spec.name)
        assert info is not None
        ids.append(info.id)
        await engine.remove(spec.name)
    assert ids[0] != ids[1]


async def test_a_container_makes_its_volume_with_its_labels(engine: Engine, make_spec: MakeSpec) -> None:
    spec = make_spec(mine="a b=c,d")
    await engine.create(spec)
    volume = await engine.inspect_volume(spec.volume)
    assert volume is not None and volume.labels == {**LABELS, "mine": "a b=c,d"}
    assert abs(volume.created - time.time()) < 60
    # another container on the same files changes nothing about them
    await engine.remove(spec.name)
    await engine.create(make_spec(volume=spec.volume, mine="other"))
    again = await engine.inspect_volume(spec.volume)
    assert again is not None and again.labels == volume.labels


async def test_a_taken_name_leaves_no_volume(engine: Engine, make_spec: MakeSpec) -> None:
    spec = make_spec()
    await engine.create(spec)
    with pytest.raises(NameTaken):
        await engine.create(make_spec(spec.name, volume=f"{spec.name}-other"))
    assert await engine.inspect_volume(f"{spec.name}-other") is None


async def test_rename_keeps_the_container_and_frees_the_name(engine: Engine, make_spec: MakeSpec) -> None:
    spec, name = make_spec(), new_name()
    await engine.create(spec)
    before = await engine.inspect(spec.name)
    await engine.rename(spec.name, name)
    after = await engine.inspect(name)
    assert before is not None and after is not None
    assert (after.id, after.volumes, after.name, after.state) == (before.id, before.volumes, name, "running")
    assert name in [one.name for one in await engine.list(LABELS)]
    assert await engine.inspect(spec.name) is None
    stream = await engine.exec(name)
    await asyncio.to_thread(stream.close)
    await engine.create(make_spec(spec.name))
    await engine.remove(name)
    assert await engine.inspect(name) is None and await engine.inspect(spec.name) is not None


async def test_rename_to_a_taken_name_changes_nothing(engine: Engine, make_spec: MakeSpec) -> None:
    first, second = make_spec(), make_spec()
    await engine.create(first)
    await engine.create(second)
    for name in (first.name, second.name):
        with pytest.raises(NameTaken):
            await engine.rename(second.name, name)
    assert {first.name, second.name} <= {one.name for one in await engine.list(LABELS)}


async def test_rename_of_nothing(engine: Engine) -> None:
    name = new_name()
    with pytest.raises(ContainerGone):
        await engine.rename(new_name(), name)
    assert await engine.inspect(name) is None


async def test_of_many_that_want_a_name_one_gets_it(engine: Engine, make_spec: MakeSpec) -> None:
    specs, name = [make_spec() for _ in range(3)], new_name()
    await asyncio.gather(*map(engine.create, specs))
    claims = [engine.rename(spec.name, name) for spec in specs]
    results = await asyncio.gather(*claims, engine.create(make_spec(name)), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [NameTaken] * 3
    assert await engine.inspect(name) is not None


async def test_of_many_that_claim_a_container_one_gets_it(engine: Engine, make_spec: MakeSpec) -> None:
    spec = make_spec()
    await engine.create(spec)
    results = await asyncio.gather(*(engine.rename(spec.name, new_name()) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [ContainerGone] * 4


async def test_a_volume_has_the_labels_of_whoever_was_first(engine: Engine) -> None:
    name = new_name()
    made = await asyncio.gather(*(engine.create_volume(name, {**LABELS, "who": str(number)}) for number in range(8)))
    assert len({one.labels["who"] for one in made}) == 1
    found = await engine.inspect_volume(name)
    assert found == made[0] and found in await engine.list_volumes(LABELS)
    await engine.remove_volume(name)
    assert await engine.inspect_volume(name) is None
    await engine.remove_volume(name)


async def test_a_volume_that_a_container_has_stays(engine: Engine, make_spec: MakeSpec) -> None:
    spec, name = make_spec(), new_name()
    await engine.create(spec)
    with pytest.raises(VolumeInUse):
        await engine.remove_volume(spec.volume)
    await engine.rename(spec.name, name)
    with pytest.raises(VolumeInUse):
        await engine.remove_volume(spec.volume)
    assert await engine.inspect_volume(spec.volume) is not None
    await engine.remove(name)
    await engine.remove_volume(spec.volume)
    assert await engine.inspect_volume(spec.volume) is None


async def run_in(settings: Settings, key: str, code: str) -> str:
    """Run a cell in the session of this key, end the session, and give what the cell printed."""
    async with SessionManager(settings) as manager:
        run = await (await manager.session(key)).execute(code)
        assert run.status == "ok", run.text
        await manager.stop(key)
    return run.text


async def test_files_are_copied_as_they_are(settings: Settings, engine: Engine, image: str) -> None:
    source, target = (SessionName(NAMESPACE, key).container for key in ("copied", "copy"))
    await run_in(
        settings,
        "copied",
        "import os\n"
        "os.makedirs('a/b'); open('a/b/data', 'w').write('x' * 100_000); os.symlink('a/b', 'link')\n"
        "open('.hidden', 'w').close(); os.chmod('a/b/data', 0o640); os.utime('a/b/data', (1, 2))",
    )
    labels = {**LABELS, "docker-interpreter.key": "copy"}
    await engine.create_volume(target, labels)
    await engine.copy_volume(source, target, image, LABELS)
    assert await engine.list(LABELS) == []
    seen = await run_in(
        settings,
        "copy",
        "import os\n"
        "found = os.stat('a/b/data')\n"
        "names = sorted(name for name in os.listdir() if name != '.docker-interpreter')\n"
        "print(names, os.readlink('link'), oct(found.st_mode), found.st_mtime, found.st_size)\n"
        "open('new', 'w').close(); open('a/b/more', 'w').close()",
    )
    assert "['.hidden', 'a', 'link'] a/b 0o100640 2.0 100000\n" in seen
    sizes = await engine.volume_sizes([source, target, new_name()])
    assert set(sizes) == {source, target}
    assert all(100_000 <= size < 200_000 for size in sizes.values()), sizes
    assert await engine.volume_sizes([]) == {}
    # several managers measure at once, and an engine that does one at a time refuses none of them
    assert await asyncio.gather(*(engine.volume_sizes([source]) for _ in range(8))) == [{source: sizes[source]}] * 8


async def test_what_can_not_be_copied_is_said(settings: Settings, engine: Engine, image: str) -> None:
    source, target = SessionName(NAMESPACE, "clash").container, new_name()
    await run_in(settings, "clash", "import os; os.mkdir('name'); open('name/file', 'w').close()")
    other = SessionName(NAMESPACE, "clash/2").container
    await run_in(settings, "clash/2", "open('name', 'w').close()")
    with pytest.raises(EngineError, match="cannot overwrite non-directory"):
        await engine.copy_volume(source, other, image, LABELS)
    with pytest.raises(EngineError, match="no volume"):
        await engine.copy_volume(source, target, image, LABELS)
    assert await engine.inspect_volume(target) is None
    assert await engine.list(LABELS) == []


async def test_a_copy_can_be_cancelled(settings: Settings, engine: Engine, image: str) -> None:
    source = SessionName(NAMESPACE, "many").container
    await run_in(settings, "many", "for i in range(5000): open(f'file-{i}', 'w').write('x' * 5000)")
    target = new_name()
    await engine.create_volume(target, LABELS)
    for seconds in (0.0, 0.01, 0.2 if engine.name == "docker" else 0.02):
        copying = asyncio.create_task(engine.copy_volume(source, target, image, LABELS))
        await asyncio.sleep(seconds)
        copying.cancel()
        await asyncio.wait([copying])
        assert copying.cancelled()
        assert await engine.list(LABELS) == []
    await engine.remove_volume(target)


async def test_images_are_told_apart(engine: Engine, image: str, engine_name: str) -> None:
    if engine_name == "process":
        assert await engine.image_id(image) == ""
        return
    found = await engine.image_id(image)
    assert found is not None and found.startswith("sha256:")
    assert await engine.image_id("nobody/has:this") is None
    name = new_name()
    await engine.create_volume(name, LABELS)
    with pytest.raises(ImageMissing):
        await engine.copy_volume(name, name, "nobody/has:this", LABELS)
    with pytest.raises(ImageMissing):
        await engine.create(
            ContainerSpec(new_name(), "nobody/has:this", LABELS, name + "-2", {"idle_timeout": 60}, ContainerOptions())
        )
    assert await engine.inspect_volume(name + "-2") is None
