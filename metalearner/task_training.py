"""Training the metric space of tasks: few-shot episodes in which each sample is a whole task with its history.

In each episode a quarter of the families are queries and the others their support. For a query a with support b of the
same kind (`metalearner.surfaces`), with squared distances d² in the space and Spearman correlations ρ,

    contrast   - sum_b softmax_b(ρ_ab / τ) log softmax_b(-d²_ab)       soft contrastive: near means alike surfaces
    surface    1 - corr(y_a, sum_b softmax_b(-d²_ab) y_b)              what the support says of the query's surface

Their sum is minimised by AdamW. A family never supports itself: that variants of one data set are alike is easy, and no
help on a new one. Each of the M members trains on all folds of families but one; on that fold it is stopped early and
its distances are calibrated: pooled over the members, the excess of ρ over the usual of its kind is regressed on d
by a non-increasing function (pool adjacent violators).

Symbols: H histories, P probes, M members, F features of the encoder (`metalearner.task_encoder`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from metalearner.arrays import Array, Mask
from metalearner.histories import TaskHistory
from metalearner.task_encoder import LAYERS, Encoder
from metalearner.task_episodes import Lessons, family_of, folds, lessons
from metalearner.task_sample import NUMBERS
from metalearner.task_space import LEAST_HISTORIES, Calibration, TaskSpace

MEMBERS = 5
_HIDDEN, _POOLED, _DIMENSIONS = 16, 8, 6
_STEPS = 300
_CHECK_EVERY = 10
_STEP_S = 0.1
"""About what a step takes, at most: `seconds` becomes a number of steps by it, so that the result is reproducible."""
_GRACE_S = 15.0
"""No training is cut off before: a busy machine shall not change what a short one gives."""
_MOST_TASKS = 384
"""As many take part in an episode."""
_RATE, _DECAY = 3e-3, 0.05
_DROPPED = 0.25
"""Share of the scalars, and of the elements, that an episode hides."""
_TEMPERATURE = 0.15
_BINS = 16


def train(
    histories: Sequence[TaskHistory],
    *,
    seed: int,
    seconds: float,
    families: Sequence[str] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> TaskSpace | None:
    """A space learned from `histories`; None from fewer than 30, or from too few families of tasks.

    `families` (H) names what may not be split between learning and calibrating; by default the data set. Equal
    arguments give equal spaces, unless the machine is so slow that `seconds` end training first. `meanwhile` is called
    every few steps, and may raise.
    """
    deadline = time.monotonic() + max(seconds, _GRACE_S)
    named = list(families) if families is not None else [family_of(history) for history in histories]
    made = lessons(histories, named, LEAST_HISTORIES)
    if made is None:
        return None
    taught, words = made
    generator = torch.Generator().manual_seed(seed % 2**63)
    held = folds(taught.families, MEMBERS, generator)
    steps = max(_CHECK_EVERY, min(_STEPS, int(seconds / _STEP_S)))
    layers = _fitted(taught, held, steps, deadline, generator, meanwhile)
    calibration = _calibrated(taught, held, layers)
    return TaskSpace(Encoder(words, {name: layers[name].double().numpy() for name in LAYERS}), calibration)


def _fitted(
    taught: Lessons,
    held: Tensor,
    steps: int,
    deadline: float,
    generator: torch.Generator,
    meanwhile: Callable[[], None],
) -> Mapping[str, Tensor]:
    """Each member's layers where it did best on its own fold."""
    layers = initial_layers(taught.scalars.shape[1], generator)
    optimizer = torch.optim.AdamW(layers.values(), lr=_RATE, weight_decay=_DECAY)
    best = {name: layer.detach().clone() for name, layer in layers.items()}
    lowest = torch.full((MEMBERS,), torch.inf)
    for step in range(steps + 1):
        if step % _CHECK_EVERY == 0:
            meanwhile()
            with torch.no_grad():
                loss = _loss(
                    taught, member_points(layers, taught.scalars, taught.elements, taught.present), held, ~held
                )
            better = loss < lowest
            lowest = torch.where(better, loss, lowest)
            for name, layer in layers.items():
                shape = (MEMBERS, *[1] * (layer.ndim - 1))
                best[name] = torch.where(better.reshape(shape), layer.detach(), best[name])
        if step == steps or time.monotonic() > deadline:
            break
        optimizer.zero_grad()
        torch.autograd.backward(_episode(taught, held, layers, generator).sum())
        optimizer.step()
    return best


def _episode(taught: Lessons, held: Tensor, layers: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
    """The loss of each member (M,) on queries and support of its own."""
    count = len(taught.families)
    chosen = torch.randperm(count, generator=generator)[:_MOST_TASKS]
    part = taught.part(chosen)
    kept = torch.rand(part.scalars.shape, generator=generator) >= _DROPPED
    seen = torch.rand(part.present.shape, generator=generator) >= _DROPPED
    points = member_points(layers, part.scalars * kept / (1.0 - _DROPPED), part.elements, part.present * seen)
    draws = torch.rand((MEMBERS, int(taught.families.max()) + 1), generator=generator)
    asked = (draws < 0.25)[:, part.families]  # (M, B)
    learned = ~held[:, chosen]
    return _loss(part, points, asked & learned, ~asked & learned)


def initial_layers(scalars: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Small layers; the skip begins as a random projection, so that distances mean something from the start."""

    def drawn(rows: int, columns: int, scale: float) -> Tensor:
        made: Tensor = torch.randn((MEMBERS, rows, columns), generator=generator) * (scale / rows**0.5)
        return made

    layers = {
        "phi_in": drawn(NUMBERS, _HIDDEN, 1.0),
        "phi_in_bias": torch.zeros((MEMBERS, _HIDDEN)),
        "phi_out": drawn(_HIDDEN, _POOLED, 1.0),
        "phi_out_bias": torch.zeros((MEMBERS, _POOLED)),
        "rho_in": drawn(scalars + _POOLED, _HIDDEN, 1.0),
        "rho_in_bias": torch.zeros((MEMBERS, _HIDDEN)),
        "rho_out": drawn(_HIDDEN, _DIMENSIONS, 0.3),
        "skip": drawn(scalars, _DIMENSIONS, 0.5),
    }
    return {name: layer.requires_grad_() for name, layer in layers.items()}


def member_points(layers: Mapping[str, Tensor], scalars: Tensor, elements: Tensor, present: Tensor) -> Tensor:
    """`metalearner.task_encoder.forward`, member by member: (M, B, Z)."""
    hidden = torch.tanh(
        torch.einsum("ben,mnh->mbeh", elements, layers["phi_in"]) + layers["phi_in_bias"][:, None, None]
    )
    hidden = torch.tanh(hidden @ layers["phi_out"][:, None] + layers["phi_out_bias"][:, None, None])
    weights = present / present.sum(1, keepdim=True).clamp(min=1.0)
    pooled = torch.einsum("mbek,be->mbk", hidden, weights)
    both = torch.cat([scalars.expand(len(pooled), *scalars.shape), pooled], dim=2)
    hidden = torch.tanh(both @ layers["rho_in"] + layers["rho_in_bias"][:, None])
    points: Tensor = hidden @ layers["rho_out"] + scalars @ layers["skip"]
    return points


def _loss(taught: Lessons, points: Tensor, asked: Tensor, support: Tensor) -> Tensor:
    """Both losses of each member (M,): `points` (M, B, Z), `asked` and `support` (M, B)."""
    pairs = taught.comparable[None] & asked[:, :, None] & support[:, None, :]  # (M, B, B)
    logits = (-_squares(points)).masked_fill(~pairs, -1e9)
    target = (taught.likeness[None] / _TEMPERATURE).masked_fill(~pairs, -1e9)
    log_weights = torch.log_softmax(logits, 2)
    contrast = -(torch.softmax(target, 2) * log_weights).sum(2)
    expected = log_weights.exp() @ taught.scores
    agreement = (expected * taught.scores).sum(2) / expected.norm(dim=2).clamp(min=1e-6)
    counted = pairs.any(2)
    loss: Tensor = ((contrast + 1.0 - agreement) * counted).sum(1) / counted.sum(1).clamp(min=1)
    return loss


def _squares(points: Tensor) -> Tensor:
    """Squared distances: (M, B, Z) -> (M, B, B)."""
    lengths = (points**2).sum(2)
    squares: Tensor = lengths[:, :, None] + lengths[:, None, :] - 2.0 * points @ points.transpose(1, 2)
    return squares.clamp(min=0.0)


def _calibrated(taught: Lessons, held: Tensor, layers: Mapping[str, Tensor]) -> Calibration:
    """What distances of tasks left out to tasks learned from are worth."""
    with torch.no_grad():
        points = member_points(layers, taught.scalars, taught.elements, taught.present)
        pairs = taught.comparable[None] & held[:, :, None] & ~held[:, None, :]
        distances = _squares(points).sqrt()[pairs].double().numpy()
    likeness = taught.likeness.double().numpy()
    comparable = taught.comparable.numpy()
    networks = np.array(taught.networks)
    usual = {name: _mean(likeness, comparable & (networks == name)[:, None]) for name in sorted(set(taught.networks))}
    excess = (likeness - np.array([usual[name] for name in taught.networks])[:, None])[None].repeat(MEMBERS, 0)
    return calibrate(distances, excess[pairs.numpy()], usual)


def _mean(values: Array, where: Mask) -> float:
    return float(values[where].mean()) if where.any() else 0.0


def calibrate(distances: Array, excess: Array, usual: Mapping[str, float]) -> Calibration:
    """The non-increasing function of distance that fits `excess` best, over bins of as many pairs: (n,), (n,)."""
    order = np.argsort(distances, kind="stable")
    bins = [part for part in np.array_split(order, _BINS) if len(part)]
    centres = np.array([distances[part].mean() for part in bins])
    levels = decreasing(np.array([excess[part].mean() for part in bins]), np.array([float(len(part)) for part in bins]))
    alike = np.flatnonzero(levels > 0.0)
    radius = float(distances[bins[alike[-1]]].max()) if len(alike) and levels[0] > levels[-1] else 0.0
    return Calibration(centres, levels, usual, radius)


def decreasing(values: Array, weights: Array) -> Array:
    """The non-increasing values nearest to `values` (n,) in weighted squares: pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (left, a, m), (right, b, n) = blocks[-2:]
            blocks[-2:] = [((a * left + b * right) / (a + b), a + b, m + n)]
    return np.concatenate([np.full(length, value) for value, _, length in blocks])
