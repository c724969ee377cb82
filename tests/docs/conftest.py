"""The documents as values: their code blocks, their links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```(?P<language>[a-z]*)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line where it begins."""

    language: str
    code: str
    line: int


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text()
    return [
        Block(match["language"], match["code"], text.count("\n", 0, match.start()) + 2)
        for match in _BLOCK.finditer(text)
    ]


def documents() -> list[Path]:
    """Every Markdown file of the project."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return sorted([*found, *ROOT.glob("benchmarks/*.md")])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "document" in metafunc.fixturenames:
        metafunc.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def readme() -> list[Block]:
    """The README's blocks. `bash` and `python` ones are run by the tests; `sh` ones are for a person at a terminal."""
    return blocks_of(ROOT / "README.md")


@pytest.fixture(scope="session")
def shell_lines() -> list[tuple[Path, str]]:
    """Every command line that a document shows, continued lines joined, whether it is run by a test or not."""
    return [
        (path, line.strip())
        for path in documents()
        for block in blocks_of(path)
        if block.language in ("sh", "bash")
        for line in block.code.replace("\\\n", " ").splitlines()
        if line.strip()
    ]
