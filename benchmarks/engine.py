"""The engine's speed: updates of models a second, against ordinary training loops and against the arithmetic.

    python -m benchmarks.engine --quick          # the settings with a bar, about three minutes
    python -m benchmarks.engine                  # everything, about half an hour on two cores

Four ways are measured in turn, in processes of their own, one a core, all at once:

    ordinary   torch.nn and torch.optim as a tutorial writes them; members one after the other
    loop       the engine's own plain loop, with one population for each member
    engine     the engine
    floor      the operations of the same updates (counted by torch) at the rate of a large matrix product

The floor and the ordinary loop are those of float32, also where the engine chooses bfloat16 for its products: there it
may pass the floor.

All train the same network with AdamW and dropout, and evaluate after every epoch. Rates are updates a second of
processor time (of wall-clock on an accelerator), so that other load disturbs them little; ratios are taken within a
repeat and their median and range printed. `--json PATH` keeps every number.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import multiprocessing as mp
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from foretune.wire.datasets import Task
from workers.datasets.builtin import load_builtin
from workers.datasets.dataset import Modality
from workers.datasets.prepare import PreparedData, prepare
from workers.engine import Engine, trial_spec
from workers.engine.housing import Housing
from workers.engine.plain_loop import PlainLoop
from workers.networks import DataShape, Dropout, Network, get_network

Way = Literal["ordinary", "loop", "engine"]
WAYS: tuple[Way, ...] = ("ordinary", "loop", "engine")
_ENDLESS = 1_000_000
_RATE_SIZE = 512


@dataclass(frozen=True)
class Case:
    """One setting. `network` may carry its width: `mlp-32`. Images are those of `images` or, small ones, of digits."""

    network: str
    members: int
    batch_size: int
    small_images: bool = False

    @property
    def configuration(self) -> dict[str, int | float | str]:
        name, _, width = self.network.partition("-")
        sizes = {"cnn": 8, "gru": 32, "transformer": 32}
        chosen = {"width": int(width) if width else sizes[name], "batch_size": self.batch_size, "dropout": 0.1}
        # Perceptrons are those of the measurements before: their default has another activation by now.
        return {**chosen, "activation": "relu", "label_smoothing": 0.0} if name == "mlp" else chosen

    def load(self) -> tuple[Network, PreparedData]:
        name = self.network.partition("-")[0]
        views: dict[str, Modality] = {"mlp": "tabular", "cnn": "image", "gru": "sequence", "transformer": "sequence"}
        large = name == "cnn" and not self.small_images
        return get_network(name), images() if large else prepare(load_builtin("digits"), 0, views[name])


@dataclass(frozen=True)
class Rate:
    """`updates` a second, and operations a second of a large matrix product measured at the same time."""

    updates: float
    matrix_flops: float


def images() -> PreparedData:
    """2,000 noisy 28x28 pictures of ten patterns: as much arithmetic as digits of that size."""
    draws = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, 1, 28, 28, generator=draws)
    y = torch.randint(10, (2_500,), generator=draws)
    x = patterns[y] + torch.randn(2_500, 1, 28, 28, generator=draws)
    return PreparedData(
        key="patterns",
        task=Task.CLASSIFICATION,
        view="image",
        train_x=x[:2_000],
        train_y=y[:2_000],
        val_x=x[2_000:],
        val_y=y[2_000:],
        input_shape=(1, 28, 28),
        output_size=10,
    )


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def ordinary(case: Case, device: torch.device) -> Callable[[], int]:
    """One call trains one member for an epoch, the members in turn; it returns the number of updates."""
    network, data = case.load()
    shape = DataShape(data.task, tuple(data.input_shape), data.output_size)
    models = [
        with_torch_dropout(network.build(network.resolve(case.configuration), shape)) for _ in range(case.members)
    ]
    models = [model.to(device) for model in models]
    optimizers = [torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=1e-2) for model in models]
    train_x, train_y, val_x, val_y = (part.to(device) for part in (data.train_x, data.train_y, data.val_x, data.val_y))
    turn = 0

    def epoch() -> int:
        nonlocal turn
        model, optimizer = models[turn], optimizers[turn]
        turn = (turn + 1) % case.members
        model.train()
        order = torch.randperm(len(train_x), device=device)
        batches = order.split(case.batch_size)
        for batch in batches:
            loss = F.cross_entropy(model(train_x[batch]), train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            outputs = model(val_x)
            float(F.cross_entropy(outputs, val_y))
            float((outputs.argmax(1) == val_y).float().mean())
        return len(batches)

    return epoch


def with_torch_dropout(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, Dropout):
            setattr(module, name, nn.Dropout(child.rate))
        else:
            with_torch_dropout(child)
    return module


def ours(case: Case, device: torch.device, *, looped: bool) -> Callable[[], int]:
    """One call trains until somebody's epoch ends; it returns how many updates the ended epochs had."""
    network, data = case.load()
    engine = Engine(network, data, device, capacity=case.members)
    if looped:
        engine._housing = Housing(engine._data, lambda _: PlainLoop())
    for member in range(case.members):
        values = {**case.configuration, "learning_rate": 3e-3}
        engine.admit(trial_spec(network, str(member), values, max_epochs=_ENDLESS, seed=member))
    per_epoch = -(-len(data.train_x) // case.batch_size)
    return lambda: per_epoch * len(engine.advance())


def measure(way: Way, case: Case, device_name: str, seconds: float, start: float) -> Rate:
    """Runs in a process of its own. Begins at `start` (time.time), together with its fellows."""
    torch.set_num_threads(1)
    device = torch.device(device_name)
    train = ordinary(case, device) if way == "ordinary" else ours(case, device, looped=way == "loop")
    warm = time.perf_counter()
    for _ in range(2 * case.members):
        train()
        if time.perf_counter() - warm > seconds:
            break
    time.sleep(max(0.0, start - time.time()))
    updates, begun = 0, clock(device)
    # Whole rounds of the members, so that no way is measured at the end of epochs alone.
    while clock(device) - begun < seconds:
        updates += train()
    taken = clock(device) - begun
    return Rate(updates / taken, matrix_flops(device))


def matrix_flops(device: torch.device) -> float:
    a, b = (torch.randn(_RATE_SIZE, _RATE_SIZE, device=device) for _ in range(2))
    best = 0.0
    for _ in range(5):
        begun = clock(device)
        for _ in range(10):
            out = a @ b
        best = max(best, 10 * 2.0 * _RATE_SIZE**3 / (clock(device) - begun))
    assert out.shape == a.shape
    return best


def operations(case: Case) -> float:
    """Floating-point operations of one update, its share of the evaluation included."""
    network, data = case.load()
    shape = DataShape(data.task, tuple(data.input_shape), data.output_size)
    module = network.build(network.resolve(case.configuration), shape)
    with FlopCounterMode(display=False) as training:
        F.cross_entropy(module(data.train_x[: case.batch_size]), data.train_y[: case.batch_size]).backward()
    with FlopCounterMode(display=False) as evaluation, torch.no_grad():
        module.eval()(data.val_x)
    per_epoch = -(-len(data.train_x) // case.batch_size)
    per_row = len(data.train_x) / per_epoch / min(case.batch_size, len(data.train_x))
    return training.get_total_flops() * per_row + evaluation.get_total_flops() / per_epoch


def rates(way: Way, case: Case, device: str, processes: int, seconds: float) -> Rate:
    """The mean rate of one process, with as many at once as there are cores."""
    with mp.get_context("spawn").Pool(processes) as pool:
        start = time.time() + 6.0 + seconds
        jobs = [pool.apply_async(measure, (way, case, device, seconds, start)) for _ in range(processes)]
        found = [job.get() for job in jobs]
    mean = statistics.fmean
    return Rate(mean([one.updates for one in found]), max(one.matrix_flops for one in found))


def compare(case: Case, device: str, processes: int, repeats: int, seconds: float) -> dict[str, object]:
    """Every way in turn, `repeats` times; the order is turned round each time."""
    flops = operations(case)
    table: list[dict[str, float]] = []
    for repeat in range(repeats):
        row: dict[str, float] = {}
        for way in WAYS if repeat % 2 == 0 else reversed(WAYS):
            rate = rates(way, case, device, processes, seconds)
            row[way] = rate.updates
            row["matrix_flops"] = max(row.get("matrix_flops", 0.0), rate.matrix_flops)
        row["floor"] = row["matrix_flops"] / flops
        table.append(row)
    ratios = {name: [row["engine"] / row[name] for row in table] for name in ("ordinary", "loop", "floor")}
    return {"case": asdict(case), "flops": flops, "repeats": table, "ratios": ratios}


def cases(*, quick: bool) -> list[Case]:
    if quick:
        return [Case("mlp-32", 64, 32), Case("mlp-128", 64, 128), Case("gru", 16, 32), Case("transformer", 16, 32)]
    networks = ("mlp-32", "mlp-128", "mlp-512", "cnn", "gru", "transformer")
    sizes = [(members, batch) for batch in (32, 128, 256) for members in (1, 4, 16, 64)]
    large = [Case(name, members, batch) for name in networks for members, batch in sizes]
    return large + [Case(name, *size, small_images=True) for name in ("cnn-8", "cnn-16") for size in sizes]


def line(result: dict[str, object], case: Case) -> str:
    ratios, repeats = result["ratios"], result["repeats"]
    assert isinstance(ratios, dict)
    assert isinstance(repeats, list)
    engine = statistics.median(row["engine"] for row in repeats)
    name = f"{case.network} small" if case.small_images else case.network
    parts = [f"{name:12s} {case.members:3d} members  batch {case.batch_size:3d}  {engine:9.0f} updates/s a core"]
    for way, text in (("ordinary", "x ordinary"), ("loop", "x loop"), ("floor", "of the floor")):
        found = ratios[way]
        parts.append(f"{statistics.median(found):6.2f} ({min(found):.2f}-{max(found):.2f}) {text}")
    return "  ".join(parts)


def main() -> None:
    """Measures and prints one line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the settings that have a bar")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of processor time for each way and repeat")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, help="default: one a core on a CPU, one on an accelerator")
    parser.add_argument("--only", help="settings of this network alone, such as mlp-32")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    on_cpu = torch.device(arguments.device).type == "cpu"
    processes = arguments.processes or (len(os.sched_getaffinity(0)) if on_cpu else 1)
    results = []
    for case in cases(quick=arguments.quick):
        if arguments.only in (None, case.network):
            results.append(compare(case, arguments.device, processes, arguments.repeats, arguments.seconds))
            print(line(results[-1], case), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": arguments.device, "processes": processes, "results": results}))


if __name__ == "__main__":
    main()
