"""The production files as values: compose after interpolation, the Dockerfile by stage, `.env.example` by name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
Compose = dict[str, object]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"^(?P<comment># )?(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)$")


class MissingVariable(Exception):
    """`${NAME:?message}` without a value: `docker compose` would stop here."""


@dataclass
class Stage:
    """One `FROM … AS name`: its instructions in order, continuation lines joined."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [argument for name, argument in self.instructions if name == instruction]


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """`$$`, `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, nested, as the compose specification says."""
    result, position = "", 0
    while position < len(text):
        if text[position] != "$":
            result += text[position]
            position += 1
        elif text.startswith("$$", position):
            result += "$"
            position += 2
        elif text.startswith("${", position):
            end = _closing(text, position + 2)
            result += _substitute(text[position + 2 : end], environment)
            position = end + 1
        else:
            name = _VARIABLE.match(text, position + 1)
            assert name is not None, f"a single $ in {text!r}"
            result += environment.get(name.group(), "")
            position = name.end()
    return result


def _closing(text: str, start: int) -> int:
    depth = 1
    for position in range(start, len(text)):
        depth += text.startswith("${", position) - (text[position] == "}")
        if depth == 0:
            return position
    raise AssertionError(f"no closing brace in {text!r}")


def _substitute(inner: str, environment: Mapping[str, str]) -> str:
    match = _VARIABLE.match(inner)
    assert match is not None, inner
    value, rest = environment.get(match.group(), ""), inner[match.end() :]
    if not rest or value:
        return value
    if rest.startswith(":-"):
        return interpolate(rest[2:], environment)
    assert rest.startswith(":?"), f"unknown operator in {inner!r}"
    raise MissingVariable(f"{match.group()}: {rest[2:]}")


def render(value: object, environment: Mapping[str, str]) -> object:
    """Every string of a YAML value interpolated."""
    if isinstance(value, str):
        return interpolate(value, environment)
    if isinstance(value, list):
        return [render(item, environment) for item in value]
    if isinstance(value, dict):
        return {key: render(item, environment) for key, item in value.items()}
    return value


@pytest.fixture(scope="session")
def compose_text() -> str:
    return (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="session")
def rendered(compose_text: str) -> Callable[[Mapping[str, str]], Compose]:
    """The compose file as `docker compose config` shows it, given what `.env` says."""

    def with_environment(environment: Mapping[str, str]) -> Compose:
        value = render(yaml.safe_load(compose_text), environment)
        assert isinstance(value, dict)
        return value

    return with_environment


@pytest.fixture(scope="session")
def passwords() -> dict[str, str]:
    """The least that `.env` must hold."""
    return {"POSTGRES_PASSWORD": "c0ffee", "REDIS_PASSWORD": "f00d"}


@pytest.fixture(scope="session")
def services(
    rendered: Callable[[Mapping[str, str]], Compose], passwords: dict[str, str]
) -> dict[str, dict[str, object]]:
    found = rendered(passwords)["services"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="session")
def stages() -> dict[str, Stage]:
    """The Dockerfile's stages by name."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    found: dict[str, Stage] = {}
    stage = Stage("")
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, argument = line.strip().partition(" ")
        if name == "FROM":
            base, _, label = argument.partition(" AS ")
            stage = found[label] = Stage(base)
        else:
            stage.instructions.append((name, argument))
    return found


@pytest.fixture(scope="session")
def environment_example() -> dict[str, str | None]:
    """The variables of `.env.example`: what a commented line gives as default, None for one to fill in."""
    found: dict[str, str | None] = {}
    for line in (ROOT / ".env.example").read_text().splitlines():
        if match := _ASSIGNMENT.match(line):
            found[match["name"]] = match["value"] if match["comment"] else None
    return found


def words(command: object) -> list[str]:
    """A compose or Dockerfile command as a list."""
    if isinstance(command, str):
        return shlex.split(command)
    assert isinstance(command, list)
    return [str(word) for word in command]


@pytest.fixture(scope="session")
def split_command() -> Callable[[object], list[str]]:
    return words
