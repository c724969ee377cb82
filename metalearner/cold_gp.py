"""Proposals from a Gaussian process over this experiment's own results.

Which hyperparameters of the kernel hold after n results depends on the first milestone(n) of them only, and each fit
starts from the prior: so a proposal can be replayed from the results alone, with one fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.special import logsumexp

from foretune.metrics import Goal
from metalearner import gp, sensitivity
from metalearner.acquisition import log_expected_improvement
from metalearner.arrays import Array, Index
from metalearner.compiled_outcomes import spread_out
from metalearner.encoding import Encoding
from metalearner.expert import Belief
from metalearner.memory import History, Memory
from metalearner.outcomes import Scale, prediction, warp
from metalearner.prior_mean import Expectation, PriorMean, expectation, mean_on
from metalearner.sameness import Sameness, sameness
from metalearner.search import SearchPlan, search
from metalearner.values import Effort, Prediction


@dataclass(frozen=True, eq=False)
class GPSettings:
    """What an effort buys; the numbers were chosen on the development problems of `benchmarks.cold_proposals`.

    Each is equal to itself alone, so that it is a key in no time.
    """

    plan: SearchPlan
    points: int
    """At most this many observations condition the process."""
    growth: float
    """The kernel is fitted anew whenever the observations have grown by this factor."""
    iterations: int
    kernels: int = 1
    """Expected improvement is averaged over so many that the results leave possible, while there are few results."""
    prior: gp.Prior = field(default_factory=gp.Prior)
    rivals: tuple[gp.Prior, ...] = ()
    """Priors that the kernels are drawn under as well, each in proportion to its evidence, while results are fewest."""
    mean: Callable[[Array], Array] | None = None
    """What is known of rows beforehand (`metalearner.prior_mean`); None: nothing."""


SETTINGS: dict[Effort, GPSettings] = {
    Effort.FAST: GPSettings(SearchPlan(96, 96, 2, 1, 32), points=64, growth=1.15, iterations=15),
    Effort.THOROUGH: GPSettings(
        SearchPlan(200, 200, 3, 3, 24),
        points=256,
        growth=1.0,
        iterations=60,
        kernels=12,
        rivals=(gp.Prior(trend=1.0), gp.Prior(common=0.85), gp.Prior(trend=1.0, common=0.85)),
    ),
}
_INCUMBENTS = 5
_FEW = 64
"""With more results the kernel is as good as known."""
_FEWEST = 30
"""With more results rival priors have had their say: trends and common length scales are wrong about cliffs and about
parameters that do not matter, and then stand in the way."""


@lru_cache(maxsize=256)
def settings_for(
    effort: Effort, encoding: Encoding, *, informed: bool, prior_mean: PriorMean | None = None
) -> GPSettings:
    """What the effort buys on this space. `informed`: its results are of networks whose default an expert chose, of
    whose parameters something is known; `prior_mean`: what is known of all settings of the network.
    """
    settings = SETTINGS[effort]
    if informed:
        settings = replace(
            settings,
            prior=sensitivity.informed(settings.prior, encoding.space),
            rivals=tuple(sensitivity.informed(rival, encoding.space) for rival in settings.rivals),
        )
    return settings if prior_mean is None else replace(settings, mean=mean_on(prior_mean, encoding))


@dataclass(frozen=True)
class Surrogate:
    """The fitted process with what turns its scores back into values."""

    encoding: Encoding
    posterior: gp.Posterior
    scale: Scale
    incumbents: Array  # (k, D), the best first
    best: float
    """Least expected score among the observations."""
    same: Sameness | None
    """Where trials would tell again what is known; None where no results are the same."""
    expected: Expectation | None
    """What the process is about the deviations from; None: from zero."""
    beforehand: Array | float
    """That at the observations: (n,)."""

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and variance of the noiseless score: (m, D) -> (m,), (m,)."""
        mean, variance = self.posterior.predict(self.encoding.features(rows))
        return mean + _beforehand(self.expected, rows), variance


def milestone(seen: int, growth: float) -> int:
    """On how many of the first `seen` observations the kernel in force was fitted."""
    if growth <= 1.0:
        return seen
    return max(step for step in _milestones(growth, seen.bit_length()) if step <= seen)


@lru_cache(maxsize=128)
def _milestones(growth: float, bits: int) -> tuple[int, ...]:
    steps, last = [0], 2**bits
    while steps[-1] < last:
        steps.append(max(steps[-1] + 1, int(steps[-1] * growth)))
    return tuple(steps)


def surrogate(history: History, memory: Memory, settings: GPSettings) -> Surrogate:
    """The process given all results so far."""
    seen = len(history)
    fitted_on = milestone(seen, settings.growth)
    kernel = memory.recall(("kernel", fitted_on, settings), lambda: _fitted(history, fitted_on, settings))
    places, scale, scores = chosen(history, seen, settings.points)
    rows, groups = history.rows[places], history.encoding.groups
    expected = None if settings.mean is None else expectation(settings.mean, rows, scores)
    beforehand = _beforehand(expected, rows)
    posterior = gp.condition(kernel, groups, history.features[places], scores - beforehand)
    fitted = posterior.fitted() + beforehand
    order = np.argsort(fitted, kind="stable")
    return Surrogate(
        history.encoding,
        posterior,
        scale,
        rows[order[:_INCUMBENTS]],
        float(fitted[order[0]]),
        sameness(history.features[places], history.losses[places]),
        expected,
        beforehand,
    )


def _beforehand(expected: Expectation | None, rows: Array) -> Array | float:
    return 0.0 if expected is None else expected.at(rows)


def _posteriors(model: Surrogate, history: History, settings: GPSettings) -> list[gp.Posterior]:
    """The surrogate's own, and with few results those of other kernels that they leave possible: a single kernel is
    too sure of itself (Snoek et al. 2012, arXiv 1206.2944, average the acquisition by slice sampling), and so is a
    single prior (Malkomes et al. 2016, Bayesian optimization for automated model selection).
    """
    seen = len(history)
    if settings.kernels == 1 or seen > _FEW:
        return [model.posterior]
    places, _, scores = chosen(history, seen, settings.points)
    features, groups = history.features[places], history.encoding.groups
    generator = np.random.default_rng(seen)
    drawn, evidences = [], []
    for prior in (settings.prior, *(settings.rivals if seen <= _FEWEST else ())):
        own = prior == settings.prior
        mode = model.posterior.kernel if own else gp.fit(features, scores, groups, prior, settings.iterations)
        kernels, evidence = gp.likely(mode, features, scores, groups, prior, settings.kernels, generator)
        drawn.append(kernels)
        evidences.append(evidence)
    counts = _shared_out(settings.kernels, np.exp(np.array(evidences) - max(evidences)))
    kernels = [one for kernels, count in zip(drawn, counts, strict=True) for one in kernels[:count]]
    return [gp.condition(one, groups, features, scores - model.beforehand) for one in kernels]


def _shared_out(count: int, weights: Array) -> Index:
    """`count` things in proportion to weights (k,), in whole numbers."""
    ends = np.round(count * np.cumsum(weights) / weights.sum()).astype(np.intp)
    return np.asarray(np.diff(ends, prepend=0))


def _fitted(history: History, count: int, settings: GPSettings) -> gp.Kernel:
    places, _, scores = chosen(history, count, settings.points)
    return gp.fit(history.features[places], scores, history.encoding.groups, settings.prior, settings.iterations)


def chosen(history: History, count: int, limit: int) -> tuple[Index, Scale, Array]:
    """Which of the first `count` observations to condition on, in their order, and the scores expected of them.

    Beyond `limit`: the best third, the last third, and others evenly spread over the time before.
    """
    losses = history.expected(count)
    if count <= limit:
        scale, scores = warp(losses)
        return np.arange(count), scale, scores
    places = spread_out(losses, limit)
    scale, scores = warp(losses[places])
    return places, scale, scores


@dataclass(frozen=True)
class Suggestion:
    """A row to try, and what the process expects of it; no row when the space holds nothing new."""

    row: Array | None
    predicted: Prediction | None


def suggest(
    history: History,
    memory: Memory,
    pending: Sequence[Array],
    goal: Goal,
    settings: GPSettings,
    generator: np.random.Generator,
    belief: Belief | None = None,
) -> Suggestion:
    """The row with the highest expected improvement, given that `pending` rows turn out as expected.

    `belief`: what an expert's default adds to it.
    """
    model = memory.recall_until_results(("surrogate", settings), lambda: surrogate(history, memory, settings))
    posteriors = memory.recall_until_results(("posteriors", settings), lambda: _posteriors(model, history, settings))
    bests = [float((one.fitted() + model.beforehand).min()) for one in posteriors]
    waiting = None
    if pending:  # as if each had turned out as expected (kriging believer)
        waiting = model.encoding.features(np.array(pending))
        posteriors = [one.believing(waiting) for one in posteriors]

    def acquisition(rows: Array) -> Array:
        features, beforehand = model.encoding.features(rows), _beforehand(model.expected, rows)
        improvements = []
        for one, best in zip(posteriors, bests, strict=True):
            mean, variance = one.predict(features)
            improvements.append(log_expected_improvement(mean + beforehand, variance, best))
        improvement = improvements[0] if len(improvements) == 1 else logsumexp(improvements, axis=0)
        if model.same is not None:
            improvement = improvement + model.same.log_news(features, waiting)
        return improvement if belief is None else improvement + belief.bonus(rows, len(history))

    rows, _ = search(acquisition, model.encoding, model.incumbents, generator, settings.plan)
    for row in rows:
        if not history.has(row, pending):
            mean, variance = model.predict(row[None, :])
            noise = model.posterior.kernel.noise
            return Suggestion(row, prediction(model.scale, goal, float(mean[0]), float(variance[0]) + noise))
    return Suggestion(None, None)
