"""The Dockerfile: two small targets, nobody is root, and its commands are those that run."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Stage(Protocol):
    base: str

    def all(self, instruction: str) -> list[str]: ...


def packages_in(stage: Stage) -> set[str]:
    """The folders that a build stage copies from the context."""
    return {argument.split()[0] for argument in stage.all("COPY") if not argument.startswith("--from")}


class TestTargets:
    @pytest.mark.parametrize(("target", "extra"), [("api", "api"), ("worker", "worker")])
    def test_a_target_installs_its_extra(self, stages: Mapping[str, Stage], target: str, extra: str) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        installs = [line for line in stages[f"build-{target}"].all("RUN") if "pip install '." in line]
        assert len(installs) == 1
        named = re.search(r"'\.\[(.+)\]'", installs[0])
        assert named is not None
        assert named[1].split(",") == [extra, "s3"]
        assert {extra, "s3"} <= set(extras)
        assert "--mount=type=cache,target=/root/.cache/pip" in installs[0]

    def test_the_api_has_neither_torch_nor_the_code_that_needs_it(self, stages: Mapping[str, Stage]) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        heavy = re.compile(r"^(torch|numba|scikit-learn|scipy|pandas|botorch)\b")
        assert not [name for name in extras["api"] if heavy.match(name)]
        assert packages_in(stages["build-api"]) == {"foretune", "service", "migrations"}

    def test_the_worker_has_every_package(self, stages: Mapping[str, Stage]) -> None:
        found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
        assert packages_in(stages["build-worker"]) == {name.removesuffix("*") for name in found["include"]}

    def test_what_is_copied_is_not_ignored(self, stages: Mapping[str, Stage]) -> None:
        kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        copied = {name for stage in stages.values() for name in packages_in(stage)}
        assert copied | {"pyproject.toml"} == set(kept)
        assert all((ROOT / name).exists() for name in kept)
        assert not any(fnmatch.fnmatch(".env", pattern) for pattern in kept)

    def test_a_build_without_a_target_is_the_small_image(self, stages: Mapping[str, Stage]) -> None:
        assert list(stages)[-1] == "api"

    @pytest.mark.parametrize("target", ["api", "worker"])
    def test_it_runs_as_nobody_in_particular(self, stages: Mapping[str, Stage], target: str) -> None:
        assert stages[target].base == "runtime"
        assert stages[target].all("USER") == ["10001:10001"]
        assert any("--uid 10001" in line and "install --directory" in line for line in stages["runtime"].all("RUN"))


class TestCommands:
    @pytest.mark.parametrize("target", ["api", "worker"])
    def test_the_default_command_is_that_of_compose(
        self, stages: Mapping[str, Stage], services: Mapping[str, Mapping[str, object]], target: str
    ) -> None:
        [command] = stages[target].all("CMD")
        service = {"api": "api", "worker": "train"}[target]
        assert json.loads(command) == str(services[service]["command"]).split()

    @pytest.mark.parametrize("target", ["api", "worker"])
    def test_the_health_check_runs_what_is_there(self, stages: Mapping[str, Stage], target: str) -> None:
        [check] = stages[target].all("HEALTHCHECK")
        command = check.partition("CMD ")[2]
        if target == "worker":
            assert command == "python -m celery -A workers.app inspect ping -t 10 -d train@$HOSTNAME"
            assert importlib.util.find_spec("celery.__main__") is not None
        else:
            python, flag, program = json.loads(command)
            assert (python, flag) == ("python", "-c")
            compile(program, "healthcheck", "exec")
