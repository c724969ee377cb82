"""What is public is documented, what is documented exists, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

import foretune
from foretune.cli.main import app
from service.embedded.keys import keys
from service.settings import Settings

_LINK = re.compile(r"\[[^\]]+\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ (?P<text>.+)$", re.M)


def commands() -> list[str]:
    """`foretune submit`, `foretune datasets add`, …: every command there is."""
    names: list[str] = []

    def walk(command: object, name: str) -> None:
        children: dict[str, object] | None = getattr(command, "commands", None)
        if children is None:
            names.append(name)
        for child, below in (children or {}).items():
            walk(below, f"{name} {child}")

    walk(typer.main.get_command(app), "foretune")
    names.remove("foretune keys")
    walk(typer.main.get_command(keys), "foretune keys")
    return names


def anchor(heading: str) -> str:
    """The fragment that a heading gets where Markdown is shown as pages."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


class TestWhatIsPublic:
    @pytest.mark.parametrize("name", sorted(foretune.__all__))
    def test_a_name_that_is_exported(self, root: Path, name: str) -> None:
        text = (root / "README.md").read_text()
        assert re.search(rf"`{name}s?`", text), f"README.md does not mention `{name}`"
        assert hasattr(foretune, name)

    @pytest.mark.parametrize("name", sorted(Settings.model_fields))
    def test_a_setting(self, root: Path, name: str) -> None:
        assert f"| `{name.upper()}` |" in (root / "docs" / "OPERATIONS.md").read_text()

    @pytest.mark.parametrize("command", commands())
    def test_a_command(self, root: Path, command: str) -> None:
        assert f"`{command}`" in (root / "docs" / "OPERATIONS.md").read_text()

    def test_no_command_is_documented_that_is_none(self, root: Path) -> None:
        shown = re.findall(r"`(foretune [a-z ]+[a-z])`", (root / "docs" / "OPERATIONS.md").read_text())
        assert set(shown) <= {*commands(), "foretune doctor"}


class TestWhatIsDocumented:
    def test_every_internal_link_resolves(self, document: Path) -> None:
        for match in _LINK.finditer(document.read_text()):
            target = match["target"]
            if target.startswith(("http://", "https://")):
                continue
            name, _, fragment = target.partition("#")
            linked = (document.parent / name).resolve() if name else document
            assert linked.exists(), f"{document.name} links to {target}"
            if fragment:
                headings = {anchor(heading["text"]) for heading in _HEADING.finditer(linked.read_text())}
                assert fragment in headings, f"{document.name} links to {target}"

    def test_every_command_line_is_one_that_exists(self, shell_lines: list[tuple[Path, str]], root: Path) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M))
        known = commands()
        checked = 0
        for path, line in shell_lines:
            if not line.startswith(("make ", "foretune ")):
                continue
            words = shlex.split(line.split(" | ")[0], comments=True)
            if words[:1] == ["make"]:
                assert words[1] in targets, f"{path.name}: {line}"
                checked += 1
            elif words[:1] == ["foretune"]:
                assert any(" ".join(words).startswith(command) for command in known), f"{path.name}: {line}"
                checked += 1
        assert checked > 10

    def test_files_that_command_lines_name_exist(self, shell_lines: list[tuple[Path, str]], root: Path) -> None:
        for path, line in shell_lines:
            for name in re.findall(r"(?:examples|benchmarks)/[\w./-]+", line):
                assert (root / name).exists(), f"{path.name}: {line}"

    def test_decisions_are_numbered_without_a_gap_and_have_the_four_parts(self, root: Path) -> None:
        records = sorted((root / "docs" / "adr").glob("*.md"))
        assert [path.name[:4] for path in records] == [f"{number:04d}" for number in range(1, len(records) + 1)]
        for path in records:
            headings = re.findall(r"^## (.+)$", path.read_text(), re.M)
            assert headings == ["Context", "Decision", "Consequences", "Alternatives"], path.name
            assert path.read_text().startswith(f"# {int(path.name[:4])}. ")
