"""`foretune submit` and `foretune watch`: from a file to a running experiment, and watching it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from foretune.cli import identify, submission
from foretune.cli.failures import ExitCode, guarded
from foretune.cli.options import AsJson, ExperimentId, connect
from foretune.cli.submission import Submission
from foretune.cli.terminal import console, note, print_json, print_json_line
from foretune.cli.watch import watch as follow
from foretune.client import Client, Experiment
from foretune.errors import FieldError, InvalidExperiment, InvalidRequest
from foretune.json_types import JsonObject, JsonValue
from foretune.states import ExperimentState
from foretune.wire import experiments as wire

_DATA_ENDINGS = frozenset({".csv", ".parquet", ".npz", ".txt"})
_WATCH_PATIENCE_S = 300.0


@guarded
def submit(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE.yaml]", help="What to tune; `-` reads stdin.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay and show the progress.")] = False,
    dataset: Annotated[str | None, typer.Option(help="Id or name; or a file, which is uploaded first.")] = None,
    network: Annotated[str | None, typer.Option(help="For example mlp.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    max_trials: Annotated[int | None, typer.Option(help="As budget.max_trials.")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="As budget.max_epochs.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="As budget.max_seconds.")] = None,
    parallelism: Annotated[int | None, typer.Option(help="Trials at the same time.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes it repeatable.")] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of the file, e.g. budget.target=0.98."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file and print what would be sent.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a tuning job from a YAML file; options replace what the file says.

    With --watch --json the experiment is printed as one line, then each event as one.

    Examples:

        foretune submit job.yaml --watch

        foretune submit --dataset digits --network mlp --max-trials 32 --watch

        foretune submit job.yaml --dataset churn.csv --set budget.target=0.98

        id=$(foretune submit job.yaml --json | jq -r .id)
    """
    given: dict[str, JsonValue] = {
        "name": name, "dataset": dataset, "network": network, "parallelism": parallelism, "seed": seed,
    }  # fmt: skip
    budget: dict[str, JsonValue] = {"max_trials": max_trials, "max_epochs": max_epochs, "max_seconds": max_seconds}
    changes = submission.merge_all(
        [*(submission.assignment(one) for one in assign or []), _present({**given, "budget": _present(budget) or None})]
    )
    job = _job(file, changes)
    upload = _upload_wanted(job, None if dataset is not None else file)
    if upload is None or dry_run:
        request = (job if upload is None else job.with_values({"dataset": "dst_uploaded"})).request()
        if dry_run:
            print_json(request.model_dump(mode="json", exclude_unset=True, exclude_none=True))
            return
    with connect(context, _WATCH_PATIENCE_S if watch else 15.0) as client:
        if upload is not None:
            job = job.with_values({"dataset": _upload(client, upload)})
            request = job.request()
        experiment = _send(client, job, request)
        if as_json and watch:
            print_json_line(experiment.info)
        elif as_json:
            print_json(experiment.info)
        else:
            console().print(f"submitted [bold]{experiment.id}[/]  {escape(experiment.name)}", soft_wrap=True)
        if watch:
            _follow(client, experiment.id, as_json)
        elif not as_json:
            note(f"watch it: foretune watch {experiment.id}")


@guarded
def watch(context: typer.Context, experiment: ExperimentId = "last", as_json: AsJson = False) -> None:
    """Show an experiment's progress until it ends, then its best trial and recommendation.

    Ctrl-C leaves; the experiment goes on. With --json each event is printed as one line.
    Exit code 0 when it completed, 1 when it failed or was canceled.

    Examples:

        foretune watch last

        foretune watch digits-mlp --json | jq 'select(.type == "experiment.best")'
    """
    with connect(context, _WATCH_PATIENCE_S) as client:
        _follow(client, identify.experiment(client, experiment).id, as_json)


def _follow(client: Client, experiment_id: str, as_json: bool) -> None:
    try:
        if as_json:
            for event in client.stream(experiment_id):
                print_json_line({"sequence": event.sequence, "type": event.type.value, "data": event.data})
            final = client.experiments.read(experiment_id)
        else:
            final = follow(client, experiment_id, console())
    except KeyboardInterrupt:
        note(f"\nleft; {experiment_id} goes on. Watch it again: foretune watch {experiment_id}")
        note(f"end it: foretune cancel {experiment_id}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if final.state is not ExperimentState.COMPLETED:
        raise typer.Exit(ExitCode.FAILED)


def _job(file: str | None, changes: JsonObject) -> Submission:
    if file is None:
        if not {"dataset", "network"} <= set(changes):
            raise InvalidRequest("give a FILE.yaml, or at least --dataset and --network")
        job = Submission("the options", "", {}, {}, {})
    else:
        job = submission.read(_text(file), "stdin" if file == "-" else file)
    job = job.with_values(changes)
    if "mode" not in job.value and "network" in job.value:
        job = job.with_values({"mode": "managed"})
    return job


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{file} is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from None


def _upload_wanted(job: Submission, file: str | None) -> JsonObject | None:
    """The dataset's file if the job names one instead of an id; relative to the job's file."""
    dataset = job.value.get("dataset")
    base = Path(file).parent if file not in (None, "-") else Path()
    if isinstance(dataset, str):
        path = base / dataset
        return {"file": str(path)} if _names_a_file(dataset) and path.is_file() else None
    if not isinstance(dataset, dict):
        return None
    unknown = sorted(set(dataset) - {"file", "name", "target", "task"})
    if unknown or not isinstance(dataset.get("file"), str):
        raise InvalidExperiment(
            f"{job.source}: dataset must be an id, a name, a file, or a mapping with file, name, target and task"
            + (f"; {unknown[0]!r} is none of them" if unknown else "; `file` is missing")
        )
    return {**dataset, "file": str(base / str(dataset["file"]))}


def _upload(client: Client, upload: JsonObject) -> str:
    options = {key: None if upload.get(key) is None else str(upload[key]) for key in ("name", "target", "task")}
    dataset = client.datasets.upload(
        str(upload["file"]), name=options["name"], target=options["target"], task=options["task"]
    )
    note(f"uploaded {dataset.name} ({dataset.id}): {dataset.rows} rows, {dataset.features} features, {dataset.task}")
    for warning in dataset.warnings:
        note(f"  {warning}")
    return dataset.id


def _send(client: Client, job: Submission, request: wire.ExperimentRequest) -> Experiment:
    try:
        return client.experiments.create(request)
    except InvalidRequest as error:
        if not error.errors:
            raise
        raise job.fault([_with_file(job, fault) for fault in error.errors]) from None


def _with_file(job: Submission, fault: FieldError) -> FieldError:
    """A data set that there is not may have been meant as a file."""
    dataset = job.value.get("dataset")
    if fault.loc != ("body", "dataset") or not isinstance(dataset, str) or not _names_a_file(dataset):
        return fault
    return FieldError(fault.loc, f"{fault.msg}. There is no such file here either")


def _names_a_file(dataset: str) -> bool:
    return Path(dataset).suffix.lower() in _DATA_ENDINGS


def _present(values: JsonObject) -> JsonObject:
    return {key: value for key, value in values.items() if value is not None}
