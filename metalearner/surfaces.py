"""Response surfaces: what each history says of the same settings, so that two tasks can be compared by them.

Histories are comparable within a *kind*: of one network or, where none is known, of spaces with the same parameters by
role. Of each kind the settings that most of its histories ran are its probes; where a history did not run one, its own
Gaussian process tells what it would have been. Histories that share too few settings are compared at points spread
over the space, through their processes alone.

Symbols: H histories, P probes of a kind. Scores are normal scores (`metalearner.histories`): less is better.
Likeness of two surfaces: Spearman's rank correlation over the probes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metalearner import gp
from metalearner.arrays import Array, ranks
from metalearner.encoding import Encoding, comparable
from metalearner.histories import Source, TaskHistory, source
from metalearner.portfolio import chosen_trials
from metalearner.quasirandom import point

MAX_PROBES = 64
_LEAST_PROBES = 12
_SPREAD = 48
"""So many points are looked at where too few settings are shared."""
_SHARED = 0.5
"""A probe was run by at least this share of the histories."""
_LEAST_KNOWN = 0.15
"""A surface that varies less than this, in normal scores, says nothing."""
_ITERATIONS = 15
_DIGITS = 6


@dataclass(frozen=True)
class Surfaces:
    """The surfaces of one kind of history. `members` are positions in the list that they were made of."""

    kind: str
    members: tuple[int, ...]  # H
    scores: Array  # (H, P)
    measured: Array  # (H, P): 1 where the history ran the probe, 0 where its process speaks

    @property
    def likeness(self) -> Array:
        """Rank correlations of all pairs: (H, H)."""
        return correlations(self.scores)


def surfaces(histories: Sequence[TaskHistory], *, least: int = 3) -> list[Surfaces]:
    """The surfaces of each kind that at least `least` histories belong to, in a fixed order."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for position, history in enumerate(histories):
        kinds[kind_of(history)].append(position)
    found = [_of_kind(kind, histories, kinds[kind], least) for kind in sorted(kinds)]
    return [one for one in found if one is not None]


def kind_of(history: TaskHistory) -> str:
    """Histories of the same kind can be compared."""
    if history.task.network is not None:
        return history.task.network
    return " ".join(sorted(history.space.role_of(one.name) or one.name for one in history.space.parameters))


def correlations(scores: Array) -> Array:
    """Spearman's rank correlation of all pairs of rows: (H, P) -> (H, H)."""
    ranked = ranks(scores)
    centred = ranked - ranked.mean(1, keepdims=True)
    lengths = np.sqrt((centred**2).sum(1))
    scaled = centred / np.where(lengths > 0.0, lengths, 1.0)[:, None]
    return np.asarray(np.clip(scaled @ scaled.T, -1.0, 1.0))


def _of_kind(kind: str, histories: Sequence[TaskHistory], positions: Sequence[int], least: int) -> Surfaces | None:
    if len(positions) < least:
        return None
    spaces = Counter(str(histories[position].space.to_json()) for position in positions)
    usual = min(spaces, key=lambda space: (-spaces[space], space))
    encoding = Encoding(next(histories[p].space for p in positions if str(histories[p].space.to_json()) == usual))
    sources = {position: source(histories[position], 1.0, encoding, None) for position in positions}
    known = {position: one for position, one in sources.items() if one is not None}
    if len(known) < least:
        return None
    runs = {position: _runs(one) for position, one in known.items()}
    rows = _probes(encoding, known, runs)
    keys, features = _keys(rows), encoding.features(rows)
    scores, measured = np.empty((len(known), len(rows))), np.zeros((len(known), len(rows)))
    for line, (position, one) in enumerate(known.items()):
        said = [runs[position].get(key) for key in keys]
        measured[line] = [value is not None for value in said]
        if all(value is not None for value in said):
            scores[line] = [value for value in said if value is not None]
            continue
        expected, _ = _process(one, encoding).predict(features)
        scores[line] = [guess if value is None else value for value, guess in zip(said, expected, strict=True)]
    telling = scores.std(1) >= _LEAST_KNOWN
    members = tuple(position for position, tells in zip(known, telling, strict=True) if tells)
    return Surfaces(kind, members, scores[telling], measured[telling]) if len(members) >= least else None


def _keys(rows: Array) -> list[bytes]:
    return [row.tobytes() for row in np.round(comparable(rows), _DIGITS) + 0.0]


def _runs(one: Source) -> Mapping[bytes, float]:
    """The scores of the settings that a history ran; of one that ran twice, the mean."""
    found: dict[bytes, list[float]] = defaultdict(list)
    for key, score in zip(_keys(one.rows), one.scores, strict=True):
        found[key].append(float(score))
    return {key: float(np.mean(scores)) for key, scores in found.items()}


def _probes(encoding: Encoding, known: Mapping[int, Source], runs: Mapping[int, Mapping[bytes, float]]) -> Array:
    """Settings that most histories ran; if they are too few, points spread over the space: (P, D)."""
    counts = Counter(key for one in runs.values() for key in one)
    shared = [key for key, count in counts.items() if count >= max(2.0, _SHARED * len(known))]
    if len(shared) >= _LEAST_PROBES:
        best = sorted(shared, key=lambda key: (-counts[key], key))[:MAX_PROBES]
        rows = {key: row for one in known.values() for key, row in zip(_keys(one.rows), one.rows, strict=True)}
        return np.array([rows[key] for key in sorted(best)])
    return encoding.rows(np.array([point(encoding.width, 0, index) for index in range(_SPREAD)]))


def _process(one: Source, encoding: Encoding) -> gp.Posterior:
    """The history's own surrogate of its normal scores."""
    chosen = chosen_trials(one.scores)
    features, scores = one.features[chosen], one.scores[chosen]
    kernel = gp.fit(features, scores, encoding.groups, gp.Prior(noise_mean=-3.0, mean_variance=0.1), _ITERATIONS)
    return gp.condition(kernel, encoding.groups, features, scores)
