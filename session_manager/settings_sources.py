"""Where settings come from: YAML within bounds, the environment, code; and errors that say which it was."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from .errors import SettingsError
from .settings_refused import REFUSED_OPTIONS

PREFIX = "DOCKER_INTERPRETER_"
CONFIG_VARIABLE = "DOCKER_INTERPRETER_CONFIG"
KEY_VARIABLE = "DOCKER_INTERPRETER_API_KEY"
"""The key of a model's endpoint, which is no setting: it would be shown where settings are."""
_MAX_YAML_BYTES = 65_536
_MAX_YAML_DEPTH = 8
_MAX_NUMBER_BITS = 256
_MAX_PROBLEMS = 5

Keys = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class _NotOurYaml(yaml.MarkedYAMLError):
    """YAML that is valid, but more than settings need."""


class _BoundedLoader(yaml.SafeLoader):
    """Safe YAML without aliases, merge keys and duplicate keys, nested only so deep."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _not_ours("aliases (*name) are not allowed here", event)
        if getattr(event, "anchor", None) is not None:
            raise _not_ours("anchors (&name) are not allowed here", event)
        self.depth += 1
        if self.depth > _MAX_YAML_DEPTH:
            raise _not_ours("it is nested too deeply", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Python reads hexadecimal numbers of any length, and refuses to show them."""
        number: int = super().construct_yaml_int(node)
        if number.bit_length() > _MAX_NUMBER_BITS:
            raise _not_ours("a number of so many digits is not allowed here", node)
        return number


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_yaml_int)


def _not_ours(problem: str, place: Any) -> _NotOurYaml:
    return _NotOurYaml(problem=problem, problem_mark=place.start_mark)


@dataclass(frozen=True, slots=True)
class YamlMapping:
    """A YAML document's values, and the line and column of each."""

    values: dict[str, Any]
    marks: dict[Keys, str]

    def places(self, prefix: Keys = ()) -> dict[Keys, str]:
        """Where each setting is, with ``prefix`` before its keys."""
        return {prefix + keys: place for keys, place in self.marks.items()}


def parse_yaml(text: str, name: str) -> YamlMapping:
    """The mapping in a YAML text of at most 64 KiB. Raises SettingsError, with line and column."""
    if len(text.encode("utf-8", "replace")) > _MAX_YAML_BYTES:
        raise SettingsError(f"{name} is larger than {_MAX_YAML_BYTES} bytes, which no settings need.")
    marks: dict[Keys, str] = {(): f"in {name}"}
    try:
        loader = _BoundedLoader(text)
        node = loader.get_single_node()
        if node is None:
            return YamlMapping({}, marks)
        if not isinstance(node, yaml.MappingNode):
            raise _not_ours("it should be a mapping of settings, such as `image: example`", node)
        _check_keys(node, (), name, marks)
        return YamlMapping(loader.construct_document(node), marks)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise SettingsError(f"{name}{at} can't be read as settings: {reason}.") from None
    except yaml.YAMLError as error:
        reason = str(error).split("\n", 1)[0]
        raise SettingsError(f"{name} can't be read as settings: {reason}.") from None
    except ValueError:
        raise SettingsError(f"{name} can't be read as settings: a number or date in it is not valid.") from None


def _check_keys(node: yaml.Node, keys: Keys, name: str, marks: dict[Keys, str]) -> None:
    """Notes where each key is; refuses keys that are there twice, that are no text, and merge keys."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise _not_ours("a setting's name should be plain text", key)
        if key.value in seen:
            raise _not_ours(f"{key.value!r} is there twice", key)
        seen.add(key.value)
        here = (*keys, key.value)
        marks[here] = f"in {name}, line {key.start_mark.line + 1}, column {key.start_mark.column + 1}"
        _check_keys(value, here, name, marks)


@dataclass(slots=True)
class Sources:
    """Settings merged from several sources, and for each where it came from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Keys, str] = field(default_factory=lambda: {(): "in code"})

    def add(self, values: Mapping[str, Any], origins: Mapping[Keys, str]) -> None:
        """Merges values over those that are there: mappings key by key, all else replaced."""
        _merge(self.values, values)
        for keys in _leaves(values):
            self.origins[keys] = next(origins[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in origins)

    def add_file(self, path: Path | None, env: Mapping[str, str]) -> None:
        """Adds the file at ``path``, or where the search finds one. Raises SettingsError."""
        if path is None and env.get(CONFIG_VARIABLE):
            path = Path(env[CONFIG_VARIABLE])
        if path is None:
            path = next((found for found in _usual_places(env) if found.is_file()), None)
        if path is None:
            return
        path = path.expanduser()
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_YAML_BYTES + 1)
            text = content.decode()
        except OSError as error:
            raise SettingsError(f"The settings file {path} can't be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise SettingsError(f"The settings file {path} can't be read: it is not UTF-8 text.") from None
        document = parse_yaml(text, str(path))
        self.add(document.values, document.places())

    def add_environment(self, env: Mapping[str, str]) -> None:
        """Adds the variables that begin with ``DOCKER_INTERPRETER_``, sections before settings in them."""
        for variable in sorted(env):
            text = env[variable].strip()
            if not variable.startswith(PREFIX) or variable in (CONFIG_VARIABLE, KEY_VARIABLE) or not text:
                continue
            origin = f"environment variable {variable}"
            # The name of an environment variable for the container keeps its case.
            keys: list[str] = []
            for key in variable.removeprefix(PREFIX).split("__"):
                keys.append(key if keys[-1:] == ["environment"] else key.lower())
            value: Any = None if text.lower() == "null" else text
            if text.startswith("{"):
                value = parse_yaml(text, origin).values
            for key in reversed(keys):
                value = {key: value}
            self.add(value, {(): f"in {origin}"})

    def origin(self, keys: Keys) -> str:
        """Where the setting, or what it is in, came from."""
        return next(self.origins[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in self.origins)

    def build(self, model: type[Model], section: Keys) -> Model:
        """The validated section of the settings. Raises SettingsError."""
        values: Any = self.values
        for key in section:
            values = values[key]
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise explain(error, model, section, self) from None


def _usual_places(env: Mapping[str, str]) -> tuple[Path, ...]:
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    return Path("docker-interpreter.yaml"), home / ".config" / "docker-interpreter" / "config.yaml"


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = base.get(key)
            base[key] = dict(below) if isinstance(below, Mapping) else {}
            _merge(base[key], value)
        else:
            base[key] = value


def _leaves(values: Mapping[str, Any], keys: Keys = ()) -> list[Keys]:
    leaves: list[Keys] = []
    for key, value in values.items():
        leaves.append((*keys, key))
        if isinstance(value, Mapping):
            leaves.extend(_leaves(value, (*keys, key)))
    return leaves


def explain(error: ValidationError, model: type[BaseModel], section: Keys, sources: Sources) -> SettingsError:
    """Pydantic's findings as sentences: which setting, what is wrong with it, where it is."""
    sentences: list[str] = []
    for problem in error.errors(include_url=False):
        # what is unsafe stands beside the others, and is validated apart from them
        inner: Keys = tuple(key for key in problem["loc"] if key != "unsafe" or problem["loc"][-1] == key)
        keys = section + inner
        if problem["type"] == "extra_forbidden":
            sentence = _unknown(model, inner, keys)
        else:
            reason = str(problem.get("ctx", {}).get("error", "")) or problem["msg"].removeprefix("Input ")
            if problem["type"] == "model_type":
                reason = "should be a mapping of settings"
            value = _value_shown(problem["input"], keys)
            sentence = f"{'.'.join(map(str, keys)) or 'the settings'}{value} {reason}"
        sentences.append(f"{sentence} ({sources.origin(keys)})")
    shown = sentences[:_MAX_PROBLEMS]
    if len(sentences) > len(shown):
        shown.append(f"and {len(sentences) - len(shown)} more")
    return SettingsError("; ".join(shown))


def _unknown(model: type[BaseModel], inner: Keys, keys: Keys) -> str:
    *outer, name = map(str, inner)
    for part in outer:
        if part not in model.model_fields:
            continue  # a place in a list
        annotation = model.model_fields[part].annotation
        for below in (annotation, *get_args(annotation)):
            if isinstance(below, type) and issubclass(below, BaseModel):
                model = below
    section = ".".join(map(str, keys[:-1]))
    where = f" in {section}" if section else ""
    if section == "container" and name in REFUSED_OPTIONS:
        return f"option {name!r} can't be set in container: {REFUSED_OPTIONS[name]}"
    near = _in_sections(model, name) or difflib.get_close_matches(name.lower(), model.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(model.model_fields)}"
    return f"unknown setting {name!r}{where}: {hint}"


def _in_sections(model: type[BaseModel], name: str) -> list[str]:
    """The setting of this name in a section of the model, for one that was put beside the section."""
    return [
        f"{section}.{name}"
        for section, info in model.model_fields.items()
        if isinstance(info.annotation, type)
        and issubclass(info.annotation, BaseModel)
        and name in info.annotation.model_fields
    ]


def _value_shown(value: object, keys: Keys) -> str:
    """The value, where it is short and can hold no secret."""
    if isinstance(value, int) and value.bit_length() > _MAX_NUMBER_BITS:
        return ""  # Python itself refuses to write longer ones
    if not isinstance(value, str | int | float) or len(repr(value)) > 60:
        return ""
    return "" if {"environment", "docker_host"}.intersection(keys) else f" is {value!r}, but"
