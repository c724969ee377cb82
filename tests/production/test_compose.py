"""docker-compose.yml: its shape, its addresses, its commands. What needs no engine is checked."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.celery import celery as celery_command
from sqlalchemy import make_url

from foretune.json_types import JsonObject
from service.bus.names import TASK_QUEUES
from service.embedded import children
from service.embedded.layout import Layout
from service.settings import Settings

Service = dict[str, object]
Services = dict[str, Service]
ROOT = Path(__file__).resolve().parents[2]

# The part of the compose specification that the file uses, and nothing else: a misspelt key is an error.
_STRINGS: JsonObject = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
_COMMAND: JsonObject = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_DURATION: JsonObject = {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?$", "minLength": 2}
_ENVIRONMENT: JsonObject = {
    "type": "object",
    "patternProperties": {"^[A-Z][A-Z0-9_]*$": {"type": ["string", "null"]}},
    "additionalProperties": False,
}


def _object(properties: JsonObject, *required: str) -> JsonObject:
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": list(required)}


_HEALTHCHECK = _object(
    {
        "disable": {"type": "boolean"},
        "test": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "interval": _DURATION,
        "timeout": _DURATION,
        "start_period": _DURATION,
        "retries": {"type": "integer", "minimum": 1},
    }
)
_DEVICE = _object(
    {"driver": {"type": "string"}, "count": {"enum": ["all", 1]}, "capabilities": _STRINGS}, "capabilities"
)
_DEPLOY = _object(
    {
        "replicas": {"type": "string", "pattern": r"^\d+$"},
        "resources": _object({"reservations": _object({"devices": {"type": "array", "items": _DEVICE}})}),
    }
)
_SERVICE = _object(
    {
        "image": {"type": "string"},
        "build": _object(
            {"context": {"type": "string"}, "target": {"type": "string"}, "args": _ENVIRONMENT}, "context", "target"
        ),
        "pull_policy": {"enum": ["never"]},
        "command": _COMMAND,
        "environment": _ENVIRONMENT,
        "volumes": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+:/[a-z/]+$"}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^[0-9.]+:\d+:\d+$"}},
        "healthcheck": _HEALTHCHECK,
        "depends_on": {
            "type": "object",
            "additionalProperties": _object(
                {"condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}},
                "condition",
            ),
        },
        "deploy": _DEPLOY,
        "profiles": _STRINGS,
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "init": {"type": "boolean"},
        "cap_drop": _STRINGS,
        "security_opt": _STRINGS,
        "shm_size": {"type": "string", "pattern": r"^\d+[kmg]$"},
        "stop_grace_period": _DURATION,
        "logging": _object({"driver": {"type": "string"}, "options": {"type": "object"}}, "driver"),
    },
    "image",
    "restart",
)
_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": _SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
    },
    "patternProperties": {"^x-": {}},
    "additionalProperties": False,
    "required": ["services"],
}


def mapping(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


def strings(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(one) for one in value]


def parse_celery(words: list[str]) -> tuple[str, dict[str, object]]:
    """The celery command that `python -m celery WORDS` runs, its options parsed by celery itself."""
    context = celery_command.make_context("celery", list(words))
    context.obj = CLIContext(app=Celery(), no_color=True, workdir=None, quiet=True)
    name, command, rest = celery_command.resolve_command(context, [*context._protected_args, *context.args])
    assert context.params["app"] == "workers.app"
    return str(name), dict(command.make_context(name, rest, parent=context).params)


class TestShape:
    def test_every_key_is_one_that_compose_knows(
        self, rendered: Callable[[Mapping[str, str]], dict[str, object]], passwords: dict[str, str]
    ) -> None:
        jsonschema.validate(rendered(passwords), _SCHEMA)

    @pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose; the schema above is ours")
    def test_docker_compose_agrees(self, passwords: dict[str, str]) -> None:
        subprocess.run(["docker-compose", "config", "--quiet"], cwd=ROOT, env=passwords, check=True)

    @pytest.mark.parametrize("missing", ["POSTGRES_PASSWORD", "REDIS_PASSWORD"])
    def test_nothing_starts_without_passwords(
        self,
        rendered: Callable[[Mapping[str, str]], dict[str, object]],
        passwords: dict[str, str],
        missing: str,
    ) -> None:
        with pytest.raises(Exception, match=f"{missing}: set {missing} in .env"):
            rendered({name: value for name, value in passwords.items() if name != missing})

    def test_dependencies_and_volumes_exist(self, services: Services, compose_text: str) -> None:
        for name, service in services.items():
            for other, how in mapping(service.get("depends_on", {})).items():
                assert other in services, f"{name} depends on {other}"
                if mapping(how)["condition"] == "service_healthy":
                    assert "healthcheck" in services[other]
            for volume in strings(service.get("volumes", [])):
                assert re.search(rf"^  {volume.split(':')[0]}:$", compose_text.split("\nvolumes:")[1], re.M)

    def test_only_the_api_opens_a_port_and_only_on_loopback(self, services: Services) -> None:
        opened = {name: service["ports"] for name, service in services.items() if "ports" in service}
        assert opened == {"api": ["127.0.0.1:8642:8642"]}

    def test_each_image_is_built_once(self, services: Services, stages: Mapping[str, object]) -> None:
        built = [service for service in services.values() if "build" in service]
        assert sorted(str(service["image"]) for service in built) == ["foretune-api", "foretune-worker"]
        for service in built:
            assert mapping(service["build"])["target"] in stages
            assert service["image"] == f"foretune-{mapping(service['build'])['target']}"
        for service in services.values():
            taken = service not in built and str(service["image"]).startswith("foretune-")
            assert ("pull_policy" in service) == taken

    def test_postgres_mounts_the_folder_that_version_18_uses(self, services: Services) -> None:
        assert services["postgres"]["image"] == "postgres:18"
        assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]

    def test_our_processes_have_no_privileges(self, services: Services) -> None:
        for service in services.values():
            if str(service["image"]).startswith("foretune-"):
                assert service["cap_drop"] == ["ALL"]
                assert service["security_opt"] == ["no-new-privileges:true"]

    def test_a_gpu_is_reserved_only_in_its_profile(self, services: Services) -> None:
        reserving = {name for name, service in services.items() if "devices" in str(service.get("deploy"))}
        profiled = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
        assert profiled == {"train-gpu": ["gpu"]}
        assert reserving == {"train-gpu"}


class TestStartOrder:
    def test_migrations_run_before_anything_serves(self, services: Services) -> None:
        for name in ("api", "desk", "train", "train-gpu", "beat"):
            needs = mapping(services[name]["depends_on"])
            assert needs["migrate"] == {"condition": "service_completed_successfully"}
            assert needs["redis"] == {"condition": "service_healthy"}
        assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
        assert services["migrate"]["restart"] == "no"

    def test_whatever_serves_has_a_health_check_and_comes_back(self, services: Services, stages: object) -> None:
        for name in ("postgres", "redis", "api", "desk"):
            assert "test" in mapping(services[name]["healthcheck"])
        # The train workers have that of their image.
        assert "healthcheck" not in services["train"]
        for name, service in services.items():
            assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")


class TestEnvironment:
    def test_every_process_of_ours_gets_every_setting(self, services: Services) -> None:
        wanted = {name.upper() for name in Settings.model_fields}
        for name, service in services.items():
            if str(service["image"]).startswith("foretune-"):
                assert wanted <= set(mapping(service["environment"])), name

    def test_addresses_lead_to_the_services_with_their_passwords(
        self, services: Services, passwords: dict[str, str]
    ) -> None:
        environment = mapping(services["api"]["environment"])
        database, postgres = make_url(str(environment["DATABASE_URL"])), mapping(services["postgres"]["environment"])
        assert (database.drivername, database.host) == ("postgresql+psycopg", "postgres")
        assert database.username == postgres["POSTGRES_USER"]
        assert database.password == postgres["POSTGRES_PASSWORD"] == passwords["POSTGRES_PASSWORD"]
        assert database.database == postgres["POSTGRES_DB"]
        assert environment["REDIS_URL"] == f"redis://:{passwords['REDIS_PASSWORD']}@redis:6379/0"
        assert strings(str(services["redis"]["command"]).split())[-2:] == ["--requirepass", passwords["REDIS_PASSWORD"]]

    def test_artifacts_lie_on_the_volume_that_all_share(self, services: Services) -> None:
        for name in ("api", "desk", "train", "train-gpu"):
            folder = str(mapping(services[name]["environment"])["ARTIFACTS_URL"]).removeprefix("file://")
            assert f"artifacts:{folder}" in strings(services[name]["volumes"])

    def test_other_servers_replace_ours(
        self, rendered: Callable[[Mapping[str, str]], dict[str, object]], passwords: dict[str, str]
    ) -> None:
        own = {"DATABASE_URL": "postgresql+psycopg://u:p@db.example.org/f", "ARTIFACTS_URL": "s3://bucket/foretune"}
        environment = mapping(mapping(mapping(rendered({**passwords, **own})["services"])["train"])["environment"])
        assert {name: environment[name] for name in own} == own


class TestCommands:
    @pytest.mark.parametrize("service", ["migrate", "api", "desk", "train", "train-gpu", "beat"])
    def test_the_module_exists_and_runs(
        self, services: Services, service: str, split_command: Callable[[object], list[str]]
    ) -> None:
        python, flag, module, *_ = split_command(services[service]["command"])
        assert (python, flag) == ("python", "-m")
        found = importlib.util.find_spec(module)
        assert found is not None
        if found.submodule_search_locations:
            assert importlib.util.find_spec(f"{module}.__main__") is not None
        else:
            assert '__name__ == "__main__"' in Path(str(found.origin)).read_text()

    @pytest.mark.parametrize(("service", "local"), [("desk", "desk"), ("train", "train-1"), ("train-gpu", "train-1")])
    def test_workers_take_the_arguments_that_the_local_stack_gives(
        self, services: Services, service: str, local: str, split_command: Callable[[object], list[str]], tmp_path: Path
    ) -> None:
        plan = children.StackPlan(Layout.of(tmp_path), "127.0.0.1", 1, 1, "postgresql://", "redis://")
        spec = children.desk_worker(plan) if local == "desk" else children.train_worker(plan, 1)
        ours = list(spec.argv)
        _, expected = parse_celery(ours[ours.index("-A") :])
        name, options = parse_celery(split_command(services[service]["command"])[3:])
        assert name == "worker"
        assert {**options, "hostname": None} == {**expected, "hostname": None}
        environment = {"REMAP_SIGTERM": "SIGQUIT", **mapping(services[service]["environment"])}
        assert (environment["REMAP_SIGTERM"] or None) == (spec.environment or {}).get("REMAP_SIGTERM")

    def test_every_queue_has_a_worker(self, services: Services, split_command: Callable[[object], list[str]]) -> None:
        served: set[str] = set()
        for name in ("desk", "train"):
            queues = parse_celery(split_command(services[name]["command"])[3:])[1]["queues"]
            assert isinstance(queues, list)
            served |= set(queues)
        assert set(TASK_QUEUES.values()) <= served

    def test_beat_writes_where_anyone_may(
        self, services: Services, split_command: Callable[[object], list[str]]
    ) -> None:
        name, options = parse_celery(split_command(services["beat"]["command"])[3:])
        assert name == "beat"
        assert str(options["schedule"]).startswith("/tmp/")

    def test_health_checks_ask_the_node_that_the_command_names(
        self, services: Services, split_command: Callable[[object], list[str]]
    ) -> None:
        kind, check = strings(mapping(services["desk"]["healthcheck"])["test"])
        assert kind == "CMD-SHELL"
        name, options = parse_celery(check.split()[3:])
        assert name == "inspect"
        assert options["destination"] == ["desk@$HOSTNAME"]
        assert "-n desk@%h" in str(services["desk"]["command"])

    def test_the_api_listens_where_its_port_is_published(
        self, services: Services, split_command: Callable[[object], list[str]]
    ) -> None:
        arguments = split_command(services["api"]["command"])
        port = arguments[arguments.index("--port") + 1]
        assert arguments[arguments.index("--host") + 1] == "0.0.0.0"
        assert strings(services["api"]["ports"])[0].endswith(f":{port}")
        assert port in str(services["api"]["healthcheck"])
