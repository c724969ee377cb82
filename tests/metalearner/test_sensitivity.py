"""What is known beforehand of a network's hyperparameters: in their own units, and never the last word."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int, Schedule
from foretune.spaces import AnyParameter, Configuration, Space
from metalearner import Effort, Memory, Observation, Problem, cold_gp, gp, sensitivity
from metalearner.encoding import Encoding

SPACE = Space.of(
    Float("learning_rate", 1e-4, 1.0, log=True),
    Float("weight_decay", 1e-6, 0.3, log=True),
    Float("dropout", 0.0, 0.5),
    Float("label_smoothing", 0.0, 0.2),
    Int("width", 16, 512, log=True),
    Int("depth", 1, 4),
    Categorical("activation", ["relu", "gelu", "tanh"]),
    Categorical("batch_size", [32, 64, 128, 256, 512], ordered=True),
    Schedule("lr_schedule"),
)


def lengths(*parameters: AnyParameter) -> list[float | None]:
    """In parts of the cube's edge."""
    found = sensitivity.informed(gp.Prior(), Space.of(*parameters)).length_scales
    return [None if one is None else float(np.exp(one[0])) for one in found]


def distance(parameter: AnyParameter, one: float, other: float) -> float:
    """Between two values, in length scales."""
    encoding = Encoding.of(Space.of(parameter))
    rows = encoding.encode_all([{parameter.name: one}, {parameter.name: other}])
    (length,) = lengths(parameter)
    assert length is not None
    return float(abs(rows[0, 0] - rows[1, 0]) / length)


@pytest.mark.parametrize(
    ("narrow", "wide", "values"),
    [
        (Float("lr", 1e-3, 0.1, log=True), Float("eta", 1e-6, 10.0, log=True), (2e-3, 0.05)),
        (Float("dropout", 0.1, 0.3), Float("dropout", 0.0, 0.9), (0.15, 0.25)),
        (Int("width", 32, 128, log=True), Int("units", 8, 1024, log=True), (40, 100)),
        (Int("depth", 1, 4), Int("n_layers", 1, 12), (2, 3)),
        (
            Categorical("batch_size", [32, 64, 128], ordered=True),
            Categorical("bs", [8, 16, 32, 64, 128, 256], ordered=True),
            (32, 128),
        ),
    ],
)
def test_two_settings_are_as_far_apart_whatever_the_range(
    narrow: AnyParameter, wide: AnyParameter, values: tuple[float, float]
) -> None:
    assert distance(narrow, *values) == pytest.approx(distance(wide, *values), rel=0.05)


def test_a_learning_rate_matters_and_a_smoothing_hardly() -> None:
    rate, *_, smoothing = lengths(Float("lr", 1e-4, 1.0, log=True), Float("label_smoothing", 0.0, 0.2))
    assert rate is not None
    assert smoothing is not None
    assert rate < 0.5
    assert smoothing > 5.0


def test_what_has_no_known_role_or_no_units_keeps_the_usual_length() -> None:
    assert (
        lengths(
            Float("alpha", 0.0, 1.0),
            Categorical("batch_size", ["small", "large"], ordered=True),
            Categorical("width", [0, 16], ordered=True),
            Bool("flag"),
            Float("lr", 0.1, 0.2),
        )[:4]
        == [None] * 4
    )
    usual, own = gp.Prior(), sensitivity.informed(gp.Prior(), Space.of(Float("alpha", 0.0, 1.0)))
    assert np.allclose(own.lengths(1), usual.lengths(1))


def predicted(space: Space, score: dict[str, float], count: int, *, informed: bool) -> float:
    """Rank correlation of what is predicted after so many random results, and what is true; mean of eight draws."""
    encoding, found = Encoding.of(space), []
    for seed in range(8):
        generator = np.random.default_rng(seed)
        rows = encoding.rows(generator.random((count + 300, encoding.width)))
        waves = [np.sin(frequency * rows[:, space.slices[name].start]) for name, frequency in score.items()]
        values = np.sum(waves, axis=0)
        noisy = values + 0.4 * generator.standard_normal(len(values))
        configurations: list[Configuration] = [encoding.decode(row) for row in rows]
        told = [Observation(one, float(value)) for one, value in zip(configurations[:count], noisy, strict=False)]
        problem = Problem(space, Goal.MAXIMIZE, max_epochs=20, max_trials=200, seed=seed)
        history = Memory().history(problem, told)
        settings = cold_gp.settings_for(Effort.FAST, encoding, informed=informed)
        posterior = cold_gp.surrogate(history, Memory(), settings).posterior
        mean, _ = posterior.predict(encoding.features(rows[count:]))
        found.append(spearmanr(-mean, values[count:]).statistic)
    return float(np.mean(found))


def test_fewer_results_are_needed_where_it_is_right() -> None:
    score = {"learning_rate": 9.0, "width": 2.0}
    assert predicted(SPACE, score, 14, informed=True) > predicted(SPACE, score, 14, informed=False) + 0.2


def test_results_overrule_it_where_it_is_wrong() -> None:
    """Given a label smoothing decides everything and the learning rate nothing."""
    score = {"label_smoothing": 6.0}
    assert predicted(SPACE, score, 60, informed=True) > 0.8
