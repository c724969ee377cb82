"""The portfolio: the few settings that together do best over the histories, weighted by how like the task they are.

What most histories ran counts as it came out there. Real histories rarely share configurations, so everything else is
scored by each history's own Gaussian process, in normal scores (`metalearner.histories`), with one deviation of its
uncertainty as a penalty: what a history does not know counts as no better than its average. The list is greedy
(Wistuba et al. 2015, "Sequential model-free hyperparameter tuning"; Feurer et al. 2022, arXiv 2007.04074): each next
setting lowers most the weighted mean over the histories of the logarithm of the regret that the list reaches, where how
a score carries over to the task is uncertain: the less like the task is to the history, the more. The mean over that
uncertainty is exact, so that the list depends on no drawn number and on no order of the histories. Ranks alone would
spend settings on differences among good ones, and regrets alone on the few tasks that are hard.

Symbols: H histories, C candidates, G levels of regret or of score.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from metalearner import gp
from metalearner.arrays import Array, Index
from metalearner.encoding import Encoding, comparable
from metalearner.histories import Source, TaskHistory, source
from metalearner.listing import Candidates, next_of
from metalearner.values import Evidence, PortfolioItem, Problem

MAX_ITEMS = 5
FEW_ITEMS = 3
"""As many where no history is much like the task."""
ALIKE = 0.3
_POINTS = 64
"""At most so many trials of a history condition its process."""
_FITTED = 12
"""So many of the heaviest histories get a kernel of their own; the others share one."""
_ITERATIONS = 15
_CANDIDATES = 192
_FROM_EACH = 20
_DIGITS = 6
_BAD = 1.0
"""A worse score, in deviations: about the worst sixth of a history's trials."""
_JUDGES = 200
"""So many of the histories most like the task are heard; the tail would add time and little weight."""
_LEVELS = 32
"""Levels at which the distribution of what a list reaches is known."""
_FARTHEST = 4.0
"""Normal scores lie between minus and plus this."""
_SHARED = 0.5
"""A setting that histories with this share of all weight ran is measured. One that few ran is not: without the penalty
it would be preferred for its luck."""
_FLOOR = 0.1
"""Regrets much below this are as good as none."""
_SAME_DATA = 0.99
_EVIDENCE = 3
_APART = 0.05
"""Settings nearer than this in root mean square are no two opinions."""
_KEPT_KERNELS = 4096
_kernels: OrderedDict[bytes, gp.Kernel] = OrderedDict()
"""By a digest of what they were fitted on: a cache, and nothing depends on it."""
_lock = threading.Lock()


@dataclass(frozen=True)
class Judged:
    """Candidates as all histories see them. `means` and `deviations`, in normal scores, are (H, C)."""

    sources: list[Source]
    weights: Array  # (H,), what each history's opinion counts, with sum 1
    encoding: Encoding
    rows: Array  # (C, D)
    means: Array
    deviations: Array
    processes: list[gp.Posterior]  # (H,), each history's own surrogate of its normal scores

    @property
    def penalised(self) -> Array:
        """Scores with a deviation of each one's uncertainty: (H, C)."""
        return self.means + self.deviations


def build(
    problem: Problem, histories: Sequence[TaskHistory], weights: Sequence[float], k: int = MAX_ITEMS
) -> list[PortfolioItem]:
    """At most `k` settings, the best first; none where no history says anything about the problem's space.

    `weights` (H,): how like the task each history is, from 0 to 1. The answer depends on the arguments alone.
    """
    judged = judge(problem, histories, weights)
    if judged is None:
        return []
    alike = max(one.weight for one in judged.sources) >= ALIKE
    return [item_of(judged, place) for place in select(judged, min(k, MAX_ITEMS if alike else FEW_ITEMS))]


def judge(problem: Problem, histories: Sequence[TaskHistory], weights: Sequence[float]) -> Judged | None:
    """What the histories most like the task say of their own best settings and the expert's; None where none does, or
    where all that they know of this space is bad and no expert says otherwise.
    """
    encoding = Encoding.of(problem.space)
    found: list[Source] = []
    for weight, history in sorted(zip(weights, histories, strict=True), key=lambda pair: (-pair[0], pair[1].reference)):
        if len(found) == _JUDGES:
            break
        seen = source(history, weight, encoding, problem.defaults)
        if seen is not None:
            found.append(seen)
    if not found:
        return None
    found.sort(key=lambda one: (-one.weight, one.history.reference))
    rows = candidates(found, encoding, problem)
    if not len(rows):
        return None
    means = np.empty((len(found), len(rows)))
    deviations = np.empty_like(means)
    features = encoding.features(rows)
    keys = set(_keys(rows))
    processes = [_process(one, encoding.groups, keys, fitted=position < _FITTED) for position, one in enumerate(found)]
    for position, process in enumerate(processes):
        mean, variance = process.predict(features)
        means[position], deviations[position] = mean, np.sqrt(variance)
    counted = opinions(found)
    measured = _measured(found, _keys(rows))
    ran = np.isfinite(measured)
    known = ran & (counted @ ran >= _SHARED) & (ran.sum(0) > 1)
    means[known], deviations[known] = measured[known], 0.0
    return Judged(found, counted, encoding, rows, means, deviations, processes)


def opinions(found: Sequence[Source]) -> Array:
    """What each one's opinion counts, (H,) with sum 1: likeness sharpened; and what the same data said counts twice as
    much as all the rest together, or more.
    """
    weights = np.array([one.weight for one in found])
    same = np.array([one.similarity >= _SAME_DATA for one in found])
    opinions = weights**3
    if same.any() and not same.all():
        opinions[~same] *= min(1.0, 0.5 * opinions[same].sum() / opinions[~same].sum())
    return np.asarray(opinions / opinions.sum())


def candidates(found: Sequence[Source], encoding: Encoding, problem: Problem) -> Array:
    """The best different settings of the heaviest histories, and the expert's: (C, D)."""
    rows = [] if problem.defaults is None else [encoding.encode(problem.defaults)]
    known = set(_keys(np.array(rows))) if rows else set()
    best = [_best_of(one) for one in found]
    for rank in range(_FROM_EACH):
        for one in best:
            if len(rows) >= _CANDIDATES:
                break
            if rank < len(one) and one[rank].key not in known:
                known.add(one[rank].key)
                rows.append(one[rank].row)
    return np.array(rows).reshape(-1, encoding.width)


def _process(one: Source, groups: Index, candidates: Set[bytes], *, fitted: bool) -> gp.Posterior:
    """The history's own surrogate of its normal scores. Which of the `candidates` were bad there it is told, too:
    a region that diverges is too narrow for a smooth process of some trials.
    """
    chosen = chosen_trials(one.scores)
    if fitted and len(chosen) >= 8:
        kernel = _fitted(one.features[chosen], one.scores[chosen], groups)
    else:
        count = int(groups.max()) + 1
        kernel = gp.Kernel(np.full(count, 0.5 * math.sqrt(count)), 1.0, 0.1, 0.1)
    if len(chosen) < len(one.scores):
        bad = np.flatnonzero(one.scores > _BAD)
        tried = [place for place, key in zip(bad, _keys(one.rows[bad]), strict=True) if key in candidates]
        chosen = np.union1d(chosen, np.array(tried, dtype=np.intp))
    return gp.condition(kernel, groups, one.features[chosen], one.scores[chosen])


def _fitted(features: Array, scores: Array, groups: Index) -> gp.Kernel:
    """Fitted once a process: the next experiment on the same space sees most histories as the last one did."""
    said = hashlib.sha256(features.tobytes() + scores.tobytes() + groups.tobytes()).digest()
    with _lock:
        known = _kernels.get(said)
        if known is not None:
            _kernels.move_to_end(said)
            return known
    prior = gp.Prior(noise_mean=-3.0, mean_variance=0.1)
    kernel = gp.fit(features, scores, groups, prior, _ITERATIONS)
    with _lock:
        _kernels[said] = kernel
        while len(_kernels) > _KEPT_KERNELS:
            _kernels.popitem(last=False)
    return kernel


class _Setting(NamedTuple):
    key: bytes
    row: Array  # (D,)


def _best_of(one: Source) -> list[_Setting]:
    """The settings that the history brings, the best first: kept with it."""
    known = one.worked_out.get(_best_of)
    if not isinstance(known, list):
        places = [place for place in np.argsort(one.scores, kind="stable")[:_FROM_EACH] if one.scores[place] <= 0.0]
        rows = one.rows[places]
        known = one.worked_out[_best_of] = [_Setting(key, row) for key, row in zip(_keys(rows), rows, strict=True)]
    return known


def _keys_of(one: Source) -> list[bytes]:
    """`_keys` of all that the history ran, kept with it."""
    known = one.worked_out.get(_keys)
    if not isinstance(known, list):
        known = one.worked_out[_keys] = _keys(one.rows)
    return known


def _keys(rows: Array) -> list[bytes]:
    """The same for the same setting: (m, D) -> m."""
    return [row.tobytes() for row in np.round(comparable(rows), _DIGITS) + 0.0]


def _measured(found: Sequence[Source], keys: Sequence[bytes]) -> Array:
    """The score of each setting in the histories that ran it, the mean of several, NaN in the others: (H, C)."""
    measured = np.full((len(found), len(keys)), np.nan)
    for position, one in enumerate(found):
        scores: dict[bytes, list[float]] = {}
        for key, score in zip(_keys_of(one), one.scores.tolist(), strict=True):
            scores.setdefault(key, []).append(score)
        for place, key in enumerate(keys):
            if key in scores:
                measured[position, place] = np.mean(scores[key])
    return measured


def chosen_trials(scores: Array) -> Index:
    """Of many trials the best third, and others evenly spread over the ranks."""
    if len(scores) <= _POINTS:
        return np.arange(len(scores))
    order = np.argsort(scores, kind="stable")
    best = order[: _POINTS // 3]
    rest = order[_POINTS // 3 :]
    spread = rest[np.linspace(0, len(rest) - 1, _POINTS - len(best)).astype(np.intp)]
    return np.sort(np.concatenate([best, spread]))


def select(judged: Judged, k: int, *, by_regret: bool = True) -> list[int]:
    """Which candidates make the list, in their order. `by_regret`: for settings that are tried one after another; by
    score for those of which each should be good by itself.
    """
    found = viewed(judged, by_regret=by_regret)
    above = found.above()
    features = judged.encoding.features(judged.rows)
    allowed = np.ones(len(features), dtype=bool)
    still = np.repeat(found.weights[:, None], found.limits.shape[1], axis=1)  # (H, G)
    chosen: list[int] = []
    while len(chosen) < k and allowed.any():
        place = next_of(above, still, allowed)
        chosen.append(place)
        still = still * above[:, place]
        apart = np.sqrt(((features - features[place]) ** 2).sum(1) / judged.encoding.width)
        allowed &= apart >= _APART
    return chosen


def viewed(judged: Judged, *, by_regret: bool = True) -> Candidates:
    """The candidates as a list is chosen of them."""
    unlike = 1.0 - np.array([one.weight for one in judged.sources])
    carried = 0.25 + 0.5 * np.clip(unlike, 0.0, 1.0)  # (H,)
    limits = _limits(judged.sources, by_regret=by_regret)
    return Candidates(judged.weights, judged.means, judged.deviations, carried, limits)


def _limits(found: Sequence[Source], *, by_regret: bool) -> Array:
    """The score in each history above which a setting is worse than each of G levels, which stand evenly over the
    logarithm of the regret or over the score itself: (H, G).
    """
    low, high = (math.log(_FLOOR), math.log(_FLOOR + 1.0)) if by_regret else (-_FARTHEST, _FARTHEST)
    width = (high - low) / _LEVELS
    levels = low + width * (np.arange(_LEVELS) + 0.5)
    if not by_regret:
        return np.broadcast_to(levels, (len(found), _LEVELS))
    return np.array([_scores_at(one, np.exp(levels) - _FLOOR) for one in found])


def _scores_at(one: Source, regrets: Array) -> Array:
    """The highest scores that stand for no more than these regrets in the history: 0 at its best trial, 1 at its median
    one and beyond. (m,), below 1 -> (m,)
    """
    order = np.argsort(one.scores, kind="stable")
    losses, scores = one.losses[order], one.scores[order]
    finite = losses[np.isfinite(losses)]
    middle = min(float(losses[len(losses) // 2]), float(finite[-1]))
    span = middle - float(finite[0])
    known = np.minimum((losses - finite[0]) / span, 1.0) if span > 0.0 else (losses > finite[0]).astype(np.float64)
    last = np.flatnonzero(np.diff(known, append=np.inf) > 0.0)  # of equal regrets the highest score
    return np.asarray(np.interp(regrets, known[last], scores[last]))


def item_of(judged: Judged, place: int) -> PortfolioItem:
    """The candidate with what speaks for it."""
    means, deviations = judged.means[:, place], judged.deviations[:, place]
    share = ndtr(means / np.sqrt(1.0 + deviations**2))  # of the history's trials expected to be better
    support = judged.weights * np.maximum(-judged.penalised[:, place], 0.0)
    leading = [int(h) for h in np.argsort(-support, kind="stable")[:_EVIDENCE] if support[h] > 0.0]
    if not leading:
        leading = [int(np.argmax(judged.weights))]
    evidence = []
    for one in (judged.sources[h] for h in leading):
        best = one.history.best
        assert best is not None
        evidence.append(Evidence(one.history.reference, one.weight, best))
    return PortfolioItem(
        configuration=judged.encoding.decode(judged.rows[place]),
        evidence=tuple(evidence),
        predicted_rank=float(judged.weights @ share),
    )
