"""docs/ARCHITECTURE.md draws what the code does."""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum
from pathlib import Path

import pytest

from foretune.states import EXPERIMENT_MOVES, TRIAL_MOVES, ExperimentState, TrialState
from service.db.session import Transaction
from service.settings import Settings
from service.usecases.upkeep import MAX_ATTEMPTS

_ARROW = re.compile(r"^\s+(?P<source>\S+) --> (?P<target>[^\s:]+)", re.M)


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docs" / "ARCHITECTURE.md").read_text()


def drawn(text: str, heading: str) -> list[tuple[str, str]]:
    """The arrows of the picture below `heading`."""
    picture = text.split(f"\n{heading}:\n", 1)[1].split("```mermaid", 1)[1].split("```", 1)[0]
    return [(arrow["source"], arrow["target"]) for arrow in _ARROW.finditer(picture)]


@pytest.mark.parametrize(
    ("heading", "states", "moves"),
    [("Experiments", ExperimentState, EXPERIMENT_MOVES), ("Trials", TrialState, TRIAL_MOVES)],
)
def test_the_state_machines_are_those_of_the_tables(
    text: str, heading: str, states: type[StrEnum], moves: dict[StrEnum, frozenset[StrEnum]]
) -> None:
    arrows = drawn(text, heading)
    between = [arrow for arrow in arrows if "[*]" not in arrow]
    assert len(between) == len(set(between))
    assert set(between) == {(source.value, target.value) for source, targets in moves.items() for target in targets}
    assert {source for source, target in arrows if target == "[*]"} == {
        state.value for state in states if not moves[state]
    }


def test_every_house_is_there_and_every_package_is_a_house(text: str, root: Path) -> None:
    houses = set(re.findall(r"^\| `([a-z/]+)/` \|", text, re.M))
    assert all((root / house).is_dir() for house in houses)
    found = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = {name.removesuffix("*") for name in found["include"]} - {"service"}
    parts = {f"service/{path.parent.name}" for path in root.glob("service/*/__init__.py")}
    assert packages | parts == houses


def test_the_times_and_limits_that_it_names_are_the_defaults(text: str) -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert f"Its leases run out ({defaults['foretune_worker_lease_s']:g} s)" in text
    assert f"Its lease runs out ({defaults['foretune_lease_s']:g} s)" in text
    assert (defaults["foretune_upkeep_every_s"], defaults["foretune_checkpoint_every_s"]) == (2, 2)
    assert "After eight attempts" in text
    assert MAX_ATTEMPTS == 8


def test_what_it_names_in_backticks_exists(text: str, root: Path) -> None:
    for name in re.findall(r"`((?:foretune|metalearner|service|workers)/[\w/.]+\.py)`", text):
        assert (root / name).is_file(), name
    assert hasattr(Transaction, "after_commit")
