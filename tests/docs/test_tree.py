"""Rules of the source tree that no linter knows: sizes and names of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

_PACKAGES = ("foretune", "metalearner", "workers", "service", "migrations")
_MOST_LINES = 400
_NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "tools", "base_utils"}
_NOT_OURS = {".venv", "build", ".git"}


def modules(root: Path, *folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def test_the_walk_finds_the_code(root: Path) -> None:
    assert len(list(modules(root, *_PACKAGES))) > 100


def test_no_module_has_grown_beyond_its_idea(root: Path) -> None:
    long = {
        str(path.relative_to(root)): lines
        for path in modules(root, *_PACKAGES)
        if (lines := len(path.read_text().splitlines())) > _MOST_LINES
    }
    assert not long


@pytest.mark.parametrize("folder", [*_PACKAGES, "tests", "benchmarks", "examples"])
def test_no_file_is_named_after_nothing(root: Path, folder: str) -> None:
    named = {
        str(path.relative_to(root))
        for path in (root / folder).rglob("*")
        if path.stem.removeprefix("test_") in _NAMES_THAT_SAY_NOTHING and not _NOT_OURS & set(path.parts)
    }
    assert not named


def test_every_module_says_what_it_is(root: Path) -> None:
    silent = [
        str(path.relative_to(root))
        for path in modules(root, *_PACKAGES)
        if path.stat().st_size and not path.read_text().startswith(('"""', "'''"))
    ]
    assert not silent


def test_every_package_folder_is_a_package(root: Path) -> None:
    folders = {path.parent for path in modules(root, *_PACKAGES)}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_tests_lie_where_the_code_lies(root: Path) -> None:
    """`tests/service/db/…` for `service/db/…`; what tests no single folder has a folder of its own."""
    own = {"docs", "production", "faults", "chaos", "migrations", "examples"}
    for folder in sorted(path for path in (root / "tests").rglob("*") if path.is_dir()):
        parts = folder.relative_to(root / "tests").parts
        if folder.name == "__pycache__" or "__pycache__" in parts or parts[0] in own or "data" in parts:
            continue
        assert (root / Path(*parts)).exists(), f"tests/{'/'.join(parts)} has no counterpart"
