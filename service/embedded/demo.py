"""`foretune demo`: the service from nothing to a recommendation, in one terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from foretune.cli.terminal import CleanConsole
from foretune.cli.watch import watch
from foretune.client import Client
from foretune.states import ExperimentState
from foretune.wire.experiments import Experiment
from service.embedded.stack import StackOptions, start

_NETWORK, _DATASET = "mlp", "digits"
_TRIALS, _EPOCHS = 32, 15


def run(options: StackOptions) -> int:
    """Starts the stack, tunes a network on handwritten digits, shows it, stops everything; the exit status.

    Raises StackError when the stack does not start.
    """
    console = CleanConsole(highlight=False)
    with start(options) as stack:
        console.print(Text(f"Foretune is running at {stack.url} (ready in {stack.ready_after_s:.1f} s)", style="green"))
        with Client(stack.url, stack.key_file.read_text().strip()) as client:
            ended = _tune(client, console)
        console.print(Text("stopping the service", style="dim"))
    console.print(Text(f"stopped. Everything it learned stays in {stack.plan.layout.root}", style="dim"))
    return 0 if ended.state is ExperimentState.COMPLETED else 1


def _tune(client: Client, console: Console) -> Experiment:
    known = [one.info for one in client.experiments.list() if one.best]
    earlier = [one for one in known if (one.network, one.dataset) == (_NETWORK, _DATASET)]
    if earlier:
        best = max(one.best.value for one in earlier if one.best)
        times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
        console.print(f"{_NETWORK} on {_DATASET} was tuned {times} before; the best accuracy so far is {best:.4f}")
    started = time.monotonic()
    experiment = client.experiments.create(
        mode="managed",
        name=f"demo-{_DATASET}-{_NETWORK}",
        dataset=_DATASET,
        network=_NETWORK,
        budget={"max_trials": _TRIALS, "max_epochs": _EPOCHS},
        labels={"from": "demo"},
    )
    console.print(f"submitted {experiment.id}: {_NETWORK} on {_DATASET}, {_TRIALS} trials x {_EPOCHS} epochs\n")
    ended = watch(client, experiment.id, console)
    console.print(Text(f"\n{time.monotonic() - started:.1f} s from submission to recommendation", style="dim"))
    return ended
