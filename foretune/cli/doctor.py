"""`foretune doctor`: what is wrong with a set-up, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import Annotated, Protocol, cast

import typer
from rich.text import Text

from foretune.cli.failures import ExitCode, guarded
from foretune.cli.options import AsJson, connect
from foretune.cli.terminal import console, print_json
from foretune.cli.version import own_version
from foretune.client import Client
from foretune.client.answers import Reply
from foretune.errors import ClientError
from foretune.wire.service import Health, Readiness

LOCAL_CHECKS = "foretune.doctor"
"""Entry points of this group are functions that give the checks of an installed package, objects like `Check`: called
with the service's URL when the service is meant to be on this machine, else with None.
"""
SERVERS = ("DATABASE_URL", "REDIS_URL", "ARTIFACTS_URL")
"""Where one of these is set, this machine runs a part of the service, and what they name is looked at."""
_CLOCK_TOLERANCE_S = 5.0


class Finding(Protocol):
    """What a check of another package looks like."""

    @property
    def name(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def detail(self) -> str: ...
    @property
    def fix(self) -> str: ...


@dataclass(frozen=True)
class Check:
    """One thing looked at. `fix` says what to do when `ok` is false."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


@guarded
def doctor(
    context: typer.Context,
    local: Annotated[
        bool | None,
        typer.Option(
            "--local/--no-local",
            help="Look at this machine and the servers that its settings name too. Default: what is meant to be used.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the service's address, the key, versions, clocks, every part of the service, and this machine.

    Each check says which setting it is about: FORETUNE_URL and FORETUNE_API_KEY lead to the service; DATABASE_URL,
    REDIS_URL and ARTIFACTS_URL, where they are set, name servers that are looked at themselves.

    Exit code 0 when all is well, 1 when something is wrong.

    Examples:

        foretune doctor

        foretune --url https://tune.example.org doctor --json
    """
    with connect(context, 0.0) as client:
        checks: list[Check] = []
        for check in _all(client, local):
            checks.append(check)
            if not as_json:
                _show(check)
    bad = [check for check in checks if not check.ok]
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        console().print(f"\n{len(bad)} of {len(checks)} need attention" if bad else f"\nall {len(checks)} are well")
    if bad:
        raise typer.Exit(ExitCode.FAILED)


def _all(client: Client, local: bool | None) -> Iterator[Check]:
    settings = client.settings
    here = settings.is_local if local is None else local
    try:
        alive = client.probe("/healthz")
    except ClientError as error:
        fix = "start it: foretune up" if settings.is_local else "check the address: FORETUNE_URL or --url"
        yield Check("service", False, f"{error.message} ({_address(client)})", fix)
    else:
        yield from _service(client, alive)
    if here or (local is None and any(name in os.environ for name in SERVERS)):
        yield from _this_machine(settings.url if here else None)


def _address(client: Client) -> str:
    source = client.settings.url_source
    return f"the address is from {'--url' if source == 'url' else source}"


def _service(client: Client, alive: Reply) -> Iterator[Check]:
    try:
        health = alive.as_model(Health)
    except ClientError as error:
        yield Check(
            "service",
            False,
            f"{error.message} ({_address(client)})",
            "is another program on that port? see FORETUNE_URL, --url",
        )
        return
    yield Check("service", True, f"{client.settings.url} answers ({_address(client)})")
    ours = own_version()
    same = health.version.split(".")[:2] == ours.split(".")[:2]
    yield Check("version", same, f"service {health.version}, client {ours}", "" if same else "install the same version")
    yield _clock(alive)
    yield _key(client)
    yield from _parts(client)


def _clock(alive: Reply) -> Check:
    theirs = alive.server_time
    if theirs is None:
        return Check("clock", True, "the service does not tell its time")
    apart_s = abs((datetime.now(UTC) - theirs).total_seconds())
    ok = apart_s <= _CLOCK_TOLERANCE_S
    return Check("clock", ok, f"{apart_s:.0f} s apart", "" if ok else "set both clocks by NTP")


def _key(client: Client) -> Check:
    source = "--api-key" if client.settings.key_source == "api_key" else client.settings.key_source
    try:
        reply = client.probe("/v1/experiments?limit=1")
    except ClientError as error:
        return Check("key", False, error.message, "try again")
    if reply.status == 200:
        return Check("key", True, f"valid, from {source}")
    fix = "set FORETUNE_API_KEY; `foretune up` writes a key to api_key in its data folder; `foretune keys` makes more"
    detail = "none found" if client.settings.api_key is None else f"refused ({reply.status}), from {source}"
    return Check("key", False, detail, fix)


def _parts(client: Client) -> Iterator[Check]:
    try:
        readiness = client.probe("/readyz").as_model(Readiness)
    except ClientError as error:
        yield Check("parts", False, error.message, "see the API's log")
        return
    for name, said in readiness.parts.items():
        ok = said == "ok"
        yield Check(name, ok, said, "" if ok else f"see the log of the {name}")


def _this_machine(service_url: str | None) -> Iterator[Check]:
    for entry in entry_points(group=LOCAL_CHECKS):
        try:
            findings = list(cast("list[Finding]", entry.load()(service_url)))
        except Exception as error:  # noqa: BLE001 - a broken package is a finding, not our end
            yield Check(entry.name, False, f"its checks do not run: {error}", "pip install 'foretune[embedded]'")
        else:
            yield from (Check(one.name, one.ok, one.detail, one.fix) for one in findings)


def _show(check: Check) -> None:
    mark = Text("ok   ", "green") if check.ok else Text("WRONG", "bold red")
    console().print(Text.assemble(mark, "  ", (check.name, "bold"), f"  {check.detail}"))
    if not check.ok and check.fix:
        console().print(Text(f"       → {check.fix}", "yellow"))
