"""`.env.example` names every setting with its default, and every variable that the compose file reads."""

from __future__ import annotations

import re

import pytest

from service.settings import Settings

_PASSWORDS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD"}
_TOLD_TO_COMPOSE_ITSELF = {"COMPOSE_PROFILES"}


def test_every_setting_is_listed(environment_example: dict[str, str | None]) -> None:
    assert {name.upper() for name in Settings.model_fields} <= set(environment_example)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_default_is_the_real_one(environment_example: dict[str, str | None], name: str) -> None:
    default = Settings.model_fields[name].default
    shown = environment_example[name.upper()]
    if default is None:
        assert shown == ""
        return
    parsed = getattr(Settings.model_validate({name: shown}), name)
    assert parsed == default
    assert type(parsed) is type(default)


def test_only_the_passwords_must_be_filled_in(environment_example: dict[str, str | None]) -> None:
    assert {name for name, value in environment_example.items() if value is None} == _PASSWORDS


def test_what_compose_reads_is_listed_and_what_is_listed_is_read(
    environment_example: dict[str, str | None], compose_text: str
) -> None:
    interpolated = set(re.findall(r"\$\{([A-Z_]+)", compose_text))
    passed_on = set(re.findall(r"^\s+([A-Z_]+):\s*$", compose_text, re.M))
    assert interpolated | passed_on | _TOLD_TO_COMPOSE_ITSELF == set(environment_example)


def test_defaults_of_the_compose_file_are_the_ones_shown(
    environment_example: dict[str, str | None], compose_text: str
) -> None:
    for name in ("FORETUNE_BIND", "FORETUNE_PORT", "FORETUNE_TRAIN_WORKERS"):
        assert f"${{{name}:-{environment_example[name]}}}" in compose_text
