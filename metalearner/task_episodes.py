"""What the metric space of tasks is trained on, as tensors: tasks, how alike their surfaces are, and families in folds.

Symbols: H histories, P probes of the kind that has most, S scalars, E elements, N numbers of an element, M folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metalearner.arrays import Array, Mask
from metalearner.histories import TaskHistory
from metalearner.surfaces import Surfaces, surfaces
from metalearner.task_encoder import Vocabulary, inputs, vocabulary

_LEAST_OF_A_KIND = 6
_LEAST_FAMILIES = 5


@dataclass(frozen=True)
class Lessons:
    """All that an episode draws from."""

    scalars: Tensor  # (H, S)
    elements: Tensor  # (H, E, N)
    present: Tensor  # (H, E)
    likeness: Tensor  # (H, H), rank correlations of surfaces
    comparable: Tensor  # (H, H), bool: of the same kind, and of another family
    scores: Tensor  # (H, P), of length 1 and mean 0, 0 beyond a kind's own probes
    families: Tensor  # (H,), numbers
    networks: tuple[str, ...]  # H

    def part(self, chosen: Tensor) -> Lessons:
        """Of these histories alone: (B,)."""
        return Lessons(
            scalars=self.scalars[chosen],
            elements=self.elements[chosen],
            present=self.present[chosen],
            likeness=self.likeness[chosen][:, chosen],
            comparable=self.comparable[chosen][:, chosen],
            scores=self.scores[chosen],
            families=self.families[chosen],
            networks=tuple(self.networks[place] for place in chosen.tolist()),
        )


def family_of(history: TaskHistory) -> str:
    """What it shares its data with: by default, histories of the same data set."""
    return history.task.dataset or history.reference


def lessons(histories: Sequence[TaskHistory], families: Sequence[str], least: int) -> tuple[Lessons, Vocabulary] | None:
    """The histories that can be compared, and what of them is read; None for fewer than `least`, or few families."""
    kinds = surfaces(histories, least=_LEAST_OF_A_KIND)
    members = [member for kind in kinds for member in kind.members]
    names = sorted({families[member] for member in members})
    if len(members) < least or len(names) < _LEAST_FAMILIES:
        return None
    number = np.array([names.index(families[member]) for member in members])
    likeness, same, scores = _blocks(kinds)
    tasks = [histories[member].task for member in members]
    words = vocabulary(tasks)
    read = inputs(words, tasks)
    made = Lessons(
        scalars=torch.tensor(read.scalars, dtype=torch.float32),
        elements=torch.tensor(read.elements, dtype=torch.float32),
        present=torch.tensor(read.present, dtype=torch.float32),
        likeness=torch.tensor(likeness, dtype=torch.float32),
        comparable=torch.tensor(same & (number[:, None] != number[None, :])),
        scores=torch.tensor(scores, dtype=torch.float32),
        families=torch.tensor(number),
        networks=tuple(task.network or "" for task in tasks),
    )
    return made, words


def _blocks(kinds: Sequence[Surfaces]) -> tuple[Array, Mask, Array]:
    """One block on the diagonal for each kind: likeness (H, H), same kind (H, H), and scores (H, P)."""
    count = sum(len(kind.members) for kind in kinds)
    likeness, same = np.zeros((count, count)), np.zeros((count, count), dtype=bool)
    scores = np.zeros((count, max(kind.scores.shape[1] for kind in kinds)))
    start = 0
    for kind in kinds:
        block = slice(start, start + len(kind.members))
        likeness[block, block], same[block, block] = kind.likeness, True
        centred = kind.scores - kind.scores.mean(1, keepdims=True)
        scores[block, : centred.shape[1]] = centred / np.sqrt((centred**2).sum(1, keepdims=True))
        start = block.stop
    return likeness, same, scores


def folds(families: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Which histories belong to each of `count` folds of whole families, of about the same size: (M, H), bool."""
    sizes = torch.bincount(families)
    shuffled = torch.randperm(len(sizes), generator=generator)
    order = shuffled[torch.argsort(-sizes[shuffled], stable=True)]
    fold, filled = torch.zeros(len(sizes), dtype=torch.long), torch.zeros(count, dtype=torch.long)
    for family in order.tolist():
        smallest = int(filled.argmin())
        fold[family] = smallest
        filled[smallest] += sizes[family]
    return fold[families][None, :] == torch.arange(count)[:, None]
