"""Submission files: YAML (and so JSON) in, a checked request out, and every fault with its line.

Read as YAML 1.2: `1e-5` is a number, `on` and `no` are words, a date is text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import yaml
from pydantic import BaseModel

from foretune.client.requests import checked, where
from foretune.errors import FieldError, InvalidExperiment, InvalidRequest
from foretune.json_types import JsonObject, JsonValue
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.wire.experiments import Budget, ExperimentRequest, Metric

Path = tuple[str | int, ...]
_MAX_NODES = 100_000
_PARAMETERS: dict[str, type] = {
    "float": Float,
    "int": Int,
    "categorical": Categorical,
    "bool": Bool,
    "schedule": Schedule,
}
_UNKNOWN = ("Extra inputs are not permitted", "Unexpected keyword argument")


@dataclass(frozen=True)
class Place:
    """Line and column, both from 0, and how many characters are meant."""

    line: int
    column: int
    length: int


@dataclass(frozen=True)
class Submission:
    """A file as a value, and where in it each part stands."""

    source: str
    text: str
    value: JsonObject
    keys: dict[Path, Place]
    values: dict[Path, Place]

    def fault(self, faults: Sequence[FieldError], summary: str | None = None) -> InvalidExperiment:
        """One error that shows every fault at its line; paths of the service (`body.…`) are understood."""
        located = []
        for fault in faults:
            loc = fault.loc[1:] if fault.loc[:1] == ("body",) else fault.loc
            place, message = self._explain(loc, fault.msg)
            located.append((place, message))
        located.sort(key=lambda one: (one[0].line, one[0].column))
        text = "\n".join(_show(self.source, self.text, place, message) for place, message in located)
        return InvalidExperiment("\n".join(filter(None, (summary, text))), errors=faults)

    def request(self) -> ExperimentRequest:
        """The checked request. Raises InvalidExperiment that shows each fault at its line."""
        try:
            return checked(ExperimentRequest, self.value)
        except InvalidRequest as error:
            raise self.fault(error.errors) from None

    def with_values(self, changes: JsonObject) -> Submission:
        """The same file with values from the command line in place of its own."""
        return Submission(self.source, self.text, _merged(self.value, changes), self.keys, self.values)

    def _explain(self, loc: Path, message: str) -> tuple[Place, str]:
        if message in _UNKNOWN and loc:
            name, known = str(loc[-1]), self._known_keys(loc[:-1])
            near = difflib.get_close_matches(name, known, 1)
            inside = f" in {where(loc[:-1])}" if loc[:-1] else ""
            advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
            return self._key_place(loc), f"unknown key {name!r}{inside}; {advice}"
        if "discriminator 'type'" in message or ("tag" in message and "type" in message):
            message = f"type must be one of {', '.join(_PARAMETERS)}"
        elif message in ("Field required", "Missing required argument") and loc:
            return self._nearest(loc[:-1]), f"{where(loc)} is missing"
        return self._nearest(loc), f"{where(loc)}: {message}" if loc else message

    def _known_keys(self, loc: Path) -> list[str]:
        match loc:
            case ():
                return _field_names(ExperimentRequest)
            case ("metric",):
                return _field_names(Metric)
            case ("budget",):
                return _field_names(Budget)
            case ("space", int() as position):
                space = self.value.get("space")
                item = space[position] if isinstance(space, list) and position < len(space) else None
                kind = _PARAMETERS.get(str(item.get("type"))) if isinstance(item, dict) else None
                return [field.name for field in fields(kind)] if kind else []
        return []

    def _key_place(self, loc: Path) -> Place:
        return self.keys.get(loc) or self._nearest(loc)

    def _nearest(self, loc: Path) -> Place:
        for length in range(len(loc), -1, -1):
            place = self.values.get(loc[:length]) or self.keys.get(loc[:length])
            if place is not None:
                return place
        return Place(0, 0, 1)


def read(text: str, source: str) -> Submission:
    """Parses a submission file. Raises InvalidExperiment with the line of what is wrong."""
    keys: dict[Path, Place] = {}
    values: dict[Path, Place] = {}
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise InvalidExperiment(f"{source} is empty")
        _walk(node, (), keys, values, source, text, [])
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line, mark.column, 1) if mark else Place(0, 0, 1)
        message = ": ".join(part for part in (error.context, error.problem) if part)
        raise InvalidExperiment(_show(source, text, place, message)) from None
    except yaml.YAMLError as error:
        raise InvalidExperiment(f"{source} is no YAML: {error}") from None
    except (RecursionError, ValueError) as error:
        raise InvalidExperiment(f"{source} cannot be read: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(value, dict):
        raise InvalidExperiment(
            f"{source} must hold keys and values like `dataset: digits`, not {type(value).__name__}"
        )
    return Submission(source, text, value, keys, values)


def assignment(text: str) -> JsonObject:
    """`budget.max_trials=64` as `{"budget": {"max_trials": 64}}`; the value is read as YAML."""
    path, separator, written = text.partition("=")
    names = path.strip().split(".")
    if not separator or not all(names):
        raise InvalidRequest(f"--set takes KEY=VALUE or KEY.KEY=VALUE, not {text!r}")
    try:
        value: JsonValue = yaml.load(written, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidRequest(f"--set {path}: {written!r} is no value: {error}") from None
    for name in reversed(names):
        value = {name: value}
    assert isinstance(value, dict)
    return value


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: no `on`, no `12:30` as a number, no dates, and `1e-5` is a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge", ":str"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _construct_int(_: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)


def _construct_float(_: _Loader, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def _walk(
    node: yaml.Node,
    path: Path,
    keys: dict[Path, Place],
    values: dict[Path, Place],
    source: str,
    text: str,
    above: list[yaml.Node],
) -> None:
    """Notes where each part stands. Raises InvalidExperiment for a key that stands twice, and for an endless alias."""
    if any(node is one for one in above) or len(values) > _MAX_NODES:
        raise InvalidExperiment(_show(source, text, _place(node), "this file refers to itself, or holds too much"))
    values[path] = _place(node)
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _walk(item, (*path, position), keys, values, source, text, [*above, node])
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*path, str(key_node.value))
            if key in keys:
                message = f"the key {key_node.value!r} stands twice; first in line {keys[key].line + 1}"
                raise InvalidExperiment(_show(source, text, _place(key_node), message))
            keys[key] = _place(key_node)
            _walk(value_node, key, keys, values, source, text, [*above, node])


def _place(node: yaml.Node) -> Place:
    start, end = node.start_mark, node.end_mark
    return Place(start.line, start.column, max(1, end.column - start.column) if start.line == end.line else 1)


def _show(source: str, text: str, place: Place, message: str) -> str:
    """`job.yaml:7:5: message`, with the line and a mark below what is meant."""
    lines = text.splitlines()
    if not lines:
        return f"{source}: {message}"
    head = f"{source}:{place.line + 1}:{place.column + 1}: {message}"
    if place.line >= len(lines):
        return head
    line = lines[place.line]
    label = f"{place.line + 1:5d} | "
    mark = " " * place.column + "^" * max(1, min(place.length, len(line) - place.column))
    return f"{head}\n{label}{line}\n{' ' * 5} | {mark}"


def _field_names(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _merged(value: JsonObject, changes: JsonObject) -> JsonObject:
    result = dict(value)
    for name, change in changes.items():
        before = result.get(name)
        result[name] = _merged(before, change) if isinstance(before, dict) and isinstance(change, dict) else change
    return result


def merge_all(parts: Iterable[JsonObject]) -> JsonObject:
    """Assignments together; later ones win."""
    result: JsonObject = {}
    for part in parts:
        result = _merged(result, part)
    return result
