"""`foretune datasets | networks`: what can be trained on, and what can be trained."""

from __future__ import annotations

from typing import Annotated

import typer

from foretune.cli import format as fmt
from foretune.cli.failures import guarded
from foretune.cli.options import AsJson, connect
from foretune.cli.terminal import note, print_json, print_table, say
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import AnyParameter
from foretune.wire.datasets import Dataset, Task

datasets = typer.Typer(rich_markup_mode=None)


@datasets.callback(invoke_without_command=True)
@guarded
def datasets_default(context: typer.Context) -> None:
    """Datasets: list (the default), add a file, delete.

    Examples:

        foretune datasets

        foretune datasets add churn.csv --target left

        foretune datasets delete churn
    """
    if context.invoked_subcommand is None:
        list_datasets(context, as_json=False)


@datasets.command("list")
@guarded
def list_datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List datasets.

    Example:

        foretune datasets list --json | jq -r '.[].name'
    """
    with connect(context) as client:
        found = list(client.datasets.list())
    if as_json:
        print_json(found)
        return
    print_table(
        ("name", "id", "task", "kind", "#rows", "#features", "#classes", ""),
        (
            (
                one.name,
                one.id,
                one.task.value,
                one.modality,
                str(one.rows),
                str(one.features),
                "–" if one.classes is None else str(one.classes),
                "built in" if one.builtin else "",
            )
            for one in found
        ),
        empty="no datasets; add one with `foretune datasets add FILE`",
    )


@datasets.command("add")
@guarded
def add_dataset(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV, Parquet, NPZ with X and y, or UTF-8 text.")],
    name: Annotated[str | None, typer.Option(help="The file's name without its ending unless given.")] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict; the last one unless given.")] = None,
    task: Annotated[Task | None, typer.Option(help="Guessed unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file. The same file twice is one dataset.

    Examples:

        foretune datasets add churn.csv --target left --task classification

        foretune datasets add tales.txt --name tales
    """
    with connect(context) as client:
        dataset = client.datasets.upload(file, name=name, target=target, task=task)
    if as_json:
        print_json(dataset)
        return
    say(f"{dataset.id}  {dataset.name}")
    note(_described(dataset))
    for warning in dataset.warnings:
        note(f"note: {warning}")


@datasets.command("neighbours")
@guarded
def neighbours(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="Name or id.")],
    network: Annotated[str | None, typer.Option(help="Only tasks of this network.")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the prior tasks most like a dataset, and why.

    Example:

        foretune datasets neighbours digits --network mlp
    """
    with connect(context) as client:
        found = client.datasets.neighbours(dataset, network=network, limit=count)
    if as_json:
        print_json(found)
        return
    print_table(
        ("task", "network", "#similarity", "#best", "alike in", "unlike in"),
        (
            (
                one.name,
                one.network or "–",
                f"{one.similarity:.2f}",
                "–" if one.best is None else fmt.setting(one.best),
                ", ".join(two.feature for two in one.alike),
                ", ".join(two.feature for two in one.unlike),
            )
            for one in found.neighbours
        ),
        empty="no prior task is like it",
    )


@datasets.command("delete")
@guarded
def delete_dataset(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="Name or id.")],
    as_json: AsJson = False,
) -> None:
    """Delete a dataset, unless an unfinished experiment uses it.

    Example:

        foretune datasets delete churn
    """
    with connect(context) as client:
        client.datasets.delete(client.datasets.get(dataset).id)
    if as_json:
        print_json({"deleted": dataset})
    else:
        note(f"deleted {dataset}")


@guarded
def networks(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Show this one's search space.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the networks that can be trained, or show one's default search space.

    Examples:

        foretune networks

        foretune networks mlp
    """
    with connect(context) as client:
        found = list(client.networks.list()) if name is None else [client.networks.get(name)]
    if as_json:
        print_json(found if name is None else found[0])
        return
    if name is None:
        print_table(
            ("name", "tasks", "#parameters", "description"),
            ((one.name, ", ".join(one.tasks), str(len(one.space)), one.description) for one in found),
            empty="no networks: no worker has started yet",
        )
        return
    say(f"{found[0].name}: {found[0].description}")
    print_table(
        ("hyperparameter", "type", "range", "default", "when"),
        (
            (
                parameter.name,
                parameter.type,
                _range(parameter),
                fmt.setting(found[0].defaults[parameter.name]) if parameter.name in found[0].defaults else "",
                " and ".join(f"{parent} in {allowed}" for parent, allowed in (parameter.when or {}).items()),
            )
            for parameter in found[0].space
        ),
        empty="its space is empty",
    )


def _range(parameter: AnyParameter) -> str:
    match parameter:
        case Float() | Int():
            step = f", step {fmt.setting(parameter.step)}" if parameter.step is not None else ""
            return (
                f"{fmt.setting(parameter.low)} … {fmt.setting(parameter.high)}{', log' if parameter.log else ''}{step}"
            )
        case Categorical():
            return ", ".join(map(str, parameter.choices)) + (" (ordered)" if parameter.ordered else "")
        case Bool():
            return "true, false"
        case Schedule():
            return "warm-up, plateau, decay, final"


def _described(dataset: Dataset) -> str:
    classes = f", {dataset.classes} classes" if dataset.classes is not None else ""
    target = f", target {dataset.target}" if dataset.target else ""
    return f"{dataset.task} on {dataset.rows} rows, {dataset.features} features{classes}{target}"
