"""`foretune recommend | import | export`: what the service has learned, and feeding it."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from foretune.cli import identify, submission
from foretune.cli.failures import ExitCode, guarded
from foretune.cli.importing import Origin, Wanted
from foretune.cli.options import AsJson, ExperimentId, connect
from foretune.cli.terminal import complain, console, note, print_json
from foretune.cli.watch import show_recommendations
from foretune.client.recommendations import HistorySource
from foretune.errors import InvalidRequest
from foretune.json_types import JsonObject, JsonValue
from foretune.spaces import Space


class Format(StrEnum):
    """What `export` writes."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


@guarded
def recommend(
    context: typer.Context,
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-e", metavar="ID", help="From this experiment's own results.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="For this dataset, before any trial has run.")] = None,
    feature: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Describe the task instead of naming a dataset.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="What to tune.")] = None,
    space: Annotated[
        Path | None, typer.Option(help="What to tune: a YAML file with a `space`.", exists=True, dir_okay=False)
    ] = None,
    metric: Annotated[str | None, typer.Option(help="As NAME:maximize or NAME:minimize.")] = None,
    max_epochs: Annotated[int, typer.Option(min=1, help="How long a trial may train.")] = 20,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many settings.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Recommend hyperparameters and a learning-rate schedule.

    Examples:

        foretune recommend --dataset digits --network mlp

        foretune recommend --experiment last

        foretune recommend --feature rows=50000 --feature modality=image --space job.yaml --metric val_loss:minimize
    """
    if (experiment is not None) + (dataset is not None) + bool(feature) != 1:
        raise typer.BadParameter("give one of --experiment, --dataset and --feature")
    with connect(context) as client:
        if experiment is not None:
            answer = identify.experiment(client, experiment).recommendation()
        else:
            answer = client.recommend(
                dataset=dataset,
                features=_features(feature) if feature else None,
                network=network,
                space=_space(space) if space else None,
                metric=_metric(metric) if metric else None,
                max_epochs=max_epochs,
                count=count,
            )
    if as_json:
        print_json(answer)
    else:
        show_recommendations(answer, console(), count)


@guarded
def import_histories(
    context: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Files; `-` reads stdin; of Optuna also URLs of databases.")
    ],
    origin: Annotated[Origin, typer.Option("--from", help="What the files are.")] = Origin.JSONL,
    metric: Annotated[
        str | None,
        typer.Option(help="What was tuned, as NAME:maximize or NAME:minimize. JSON lines say it themselves."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="COLUMN=NAME", help="A hyperparameter's column, and its name. All, unless given."
        ),
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What describes the task: rows, classes, modality, …")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Only this study of an Optuna storage.")] = None,
    as_json: AsJson = False,
) -> None:
    """Teach the service finished experiments from elsewhere.

    JSON lines hold one experiment a line; a table or an export is one experiment, an Optuna storage one a study. What
    is wrong is named and spoils nothing else; importing twice is harmless. Exit code 1 if anything was wrong.

    Examples:

        foretune import histories.jsonl

        foretune import --from optuna sqlite:///study.db --feature rows=50000

        foretune import --from csv runs.csv --metric val_loss:minimize --map lr=learning_rate --map width=width

        foretune import --from mlflow runs.csv --metric val_accuracy:maximize

        foretune import --from wandb runs.json --metric val_loss:minimize
    """
    imported = duplicates = 0
    faults: list[JsonValue] = []
    wanted = Wanted(origin, metric, columns or [], _features(feature or []), study)
    with connect(context, 60.0) as client:
        for file in files:
            source: HistorySource = sys.stdin.buffer.read() if file == "-" else file
            if origin is not Origin.JSONL:
                found = list(wanted.read(file))
                for one in found:
                    for remark in one.notes:
                        note(f"{one.line['name']}: {remark}")
                source = [one.line for one in found]
            answer = client.import_histories(source)
            imported += answer.imported
            duplicates += answer.duplicates
            shown = "stdin" if file == "-" else file
            faults += [{"file": shown, **fault.model_dump(mode="json")} for fault in answer.errors]
    if as_json:
        print_json({"imported": imported, "duplicates": duplicates, "errors": faults})
    else:
        for fault in faults:
            assert isinstance(fault, dict)
            complain(f"{fault['file']}:{fault['line']}: {fault['detail']}", str(fault["code"]))
        typer.echo(f"{imported} imported, {duplicates} known already, {len(faults)} wrong")
    if faults:
        raise typer.Exit(ExitCode.FAILED)


@guarded
def export(
    context: typer.Context,
    experiment: ExperimentId = "last",
    format: Annotated[  # noqa: A002
        Format | None, typer.Option("--format", "-f", help="Follows the file's ending, else csv.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Standard output unless given.")
    ] = None,
) -> None:
    """Export all trials: as CSV, as Parquet with their curves, or as JSON lines with their measurements.

    Examples:

        foretune export last --format csv > trials.csv

        foretune export digits-mlp -o trials.parquet
    """
    chosen = format or _by_ending(output)
    if output is None and chosen is Format.PARQUET and sys.stdout.isatty():
        raise typer.BadParameter("Parquet is binary: give a file with --output", param_hint="--format")
    with connect(context, 60.0) as client:
        handle = identify.experiment(client, experiment)
        if output is not None:
            note(f"saved {handle.export(output, chosen.value)}")
        else:
            client.experiments.export_to(handle.id, sys.stdout.buffer, chosen.value)


def _by_ending(output: Path | None) -> Format:
    ending = output.suffix.removeprefix(".").lower() if output else ""
    return Format(ending) if ending in [known.value for known in Format] else Format.CSV


def _features(pairs: list[str]) -> dict[str, float | str]:
    result: dict[str, float | str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--feature")
        try:
            result[name] = float(value)
        except ValueError:
            result[name] = value
    return result


def _metric(text: str) -> tuple[str, str]:
    name, separator, goal = text.rpartition(":")
    if not separator or goal not in ("maximize", "minimize"):
        raise typer.BadParameter(f"{text!r} is not NAME:maximize or NAME:minimize", param_hint="--metric")
    return name, goal


def _space(path: Path) -> list[JsonObject]:
    job = submission.read(path.read_text(encoding="utf-8-sig"), str(path))
    value = job.value.get("space")
    if not isinstance(value, list):
        raise InvalidRequest(f"{path} has no `space`")
    Space.from_json(value)
    return [item for item in value if isinstance(item, dict)]
