"""The metric space of tasks: what it learns, what it says when nothing is near, and what a replay makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from metalearner import SpaceLikeness, Task, TaskHistory, TaskSpace
from metalearner.task_encoder import forward, inputs, vocabulary
from metalearner.task_judging import FamilyScore, Judgement, Judging, greedy, judge, regret
from metalearner.task_sample import FEATURE
from metalearner.task_training import calibrate, decreasing, initial_layers, member_points, train
from tests.metalearner.tasks_of_families import families, task

HISTORIES, FAMILIES = families(12, 4)
OTHERS = [one.task for one in HISTORIES]


@pytest.fixture(scope="module")
def space() -> TaskSpace:
    found = train(HISTORIES, seed=0, seconds=5.0, families=FAMILIES)
    assert found is not None
    return found


class TestTraining:
    def test_tasks_of_a_family_never_seen_are_near_what_works_alike(self, space: TaskSpace) -> None:
        generator = np.random.default_rng(5)
        hidden = np.array([0.25, 0.7])
        weights = SpaceLikeness(space).weights(task("new", hidden, generator), OTHERS)
        hiddens = [_hidden(one) for one in OTHERS]
        apart = np.array([abs(one - hidden[0]) for one in hiddens])
        assert np.corrcoef(weights, apart)[0, 1] < -0.3
        assert 0.0 < weights.min() < weights.max() < 0.8

    def test_it_depends_on_histories_and_seed_alone(self) -> None:
        few, names = families(8, 4)
        first, again, other = (train(few, seed=seed, seconds=0.5, families=names) for seed in (1, 1, 2))
        assert first is not None
        assert again is not None
        assert other is not None
        assert first.to_bytes() == again.to_bytes() != other.to_bytes()

    @pytest.mark.parametrize(("count", "variants"), [(7, 4), (4, 10)])
    def test_of_few_histories_or_families_nothing_is_learned(self, count: int, variants: int) -> None:
        few, names = families(count, variants)
        assert train(few, seed=0, seconds=1.0, families=names) is None

    def test_numpy_and_torch_agree_on_the_encoder(self) -> None:
        words = vocabulary(OTHERS)
        read = inputs(words, [*OTHERS[:5], replace(OTHERS[5], features={})])
        layers = initial_layers(words.width, torch.Generator().manual_seed(0))
        theirs = member_points(
            layers, *(torch.tensor(one, dtype=torch.float32) for one in (read.scalars, read.elements, read.present))
        )
        ours = forward({name: layer.detach().double().numpy() for name, layer in layers.items()}, read)
        members = theirs.detach().numpy().transpose(1, 0, 2).reshape(6, -1) / np.sqrt(len(theirs))
        np.testing.assert_allclose(ours, members, atol=1e-5)


class TestWeights:
    def test_the_same_data_are_the_same_and_other_kinds_are_nothing(self, space: TaskSpace) -> None:
        known = OTHERS[3]
        regression = replace(OTHERS[4], dataset="dst_r", features={**OTHERS[4].features, "task": "regression"})
        same, elsewhere, none = SpaceLikeness(space).weights(
            replace(known, features={**known.features, "task": "classification"}),
            [known, replace(known, network="cnn"), regression],
        )
        assert same == 1.0
        assert 0.0 < elsewhere < 0.5
        assert none == 0.0
        assert SpaceLikeness(space).distances(known, [known])[0] == 0.0
        assert SpaceLikeness(space).weights(known, []).shape == (0,)

    def test_where_nobody_is_near_everybody_counts_the_same(self, space: TaskSpace) -> None:
        known = OTHERS[0]
        strange = Task(
            known.metric, known.goal, "dst_s", "mlp", {name: 1e6 if "x" in name else -1e6 for name in known.features}
        )
        assert not space.near(SpaceLikeness(space).distances(strange, OTHERS))
        assert len(set(SpaceLikeness(space).weights(strange, OTHERS).tolist())) == 1

    def test_a_task_without_features_or_sample_has_weights_too(self, space: TaskSpace) -> None:
        bare = Task("val_loss", OTHERS[0].goal, "dst_b", "mlp", {"landmark_linear": 0.5, FEATURE: "no sample"})
        assert np.isfinite(SpaceLikeness(space).weights(bare, OTHERS)).all()
        assert np.isfinite(SpaceLikeness(space).weights(replace(bare, features={}, network=None), OTHERS)).all()

    def test_a_task_that_is_not_described_counts_as_any_other(self, space: TaskSpace) -> None:
        known, usual = OTHERS[0], space.calibration.between_any("mlp")
        silent = replace(known, dataset="dst_q", features={"colour": "red"})
        likeness = SpaceLikeness(space)
        assert np.isnan(likeness.distances(known, [silent])).all()
        weights = likeness.weights(known, [silent, OTHERS[1]])
        assert weights[0] == pytest.approx(0.8 * usual)
        assert weights[1] != weights[0]
        assert likeness.weights(silent, [known, OTHERS[1]]) == pytest.approx([0.8 * usual] * 2)

    def test_points_are_kept_while_the_others_stay_the_same(self, space: TaskSpace) -> None:
        likeness = SpaceLikeness(space)
        for others in (OTHERS, OTHERS[:7], OTHERS):
            for network in ("mlp", "cnn"):
                seen = replace(OTHERS[3], network=network)
                np.testing.assert_array_equal(
                    likeness.weights(seen, others), SpaceLikeness(space).weights(seen, others)
                )

    def test_bytes_hold_all_of_it(self, space: TaskSpace) -> None:
        content = space.to_bytes()
        again = TaskSpace.from_bytes(content)
        assert again.to_bytes() == content
        assert len(content) < 100_000
        np.testing.assert_array_equal(
            SpaceLikeness(again).weights(OTHERS[0], OTHERS), SpaceLikeness(space).weights(OTHERS[0], OTHERS)
        )

    @pytest.mark.parametrize("cut", [0, 7, 100, -1])
    def test_other_bytes_are_refused(self, space: TaskSpace, cut: int) -> None:
        with pytest.raises(ValueError, match="space of tasks"):
            TaskSpace.from_bytes(space.to_bytes()[:cut])

    def test_using_a_space_needs_no_torch(self) -> None:
        code = "import sys, metalearner.task_space; sys.exit('torch' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestCalibration:
    @given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=20), st.integers(0, 99))
    def test_the_decreasing_fit_is_scikit_learns(self, values: list[float], seed: int) -> None:
        weights = np.random.default_rng(seed).integers(1, 9, len(values)).astype(float)
        theirs = isotonic_regression(values, sample_weight=weights, increasing=False)
        np.testing.assert_allclose(decreasing(np.array(values), weights), theirs, atol=1e-9)

    def test_distances_that_say_nothing_have_no_radius(self) -> None:
        generator = np.random.default_rng(0)
        distances = generator.random(4000)
        assert calibrate(distances, np.zeros(4000), {}).radius == 0.0
        found = calibrate(distances, 0.5 - distances, {"mlp": 0.2})
        assert found.radius == pytest.approx(0.5, abs=0.07)
        np.testing.assert_allclose(found.expected(np.array([0.25, 0.75]), "mlp"), [0.45, -0.05], atol=0.05)


class TestJudging:
    def test_a_list_is_greedy_and_its_regret_normal(self) -> None:
        scores = np.array([[0.0, 1.0, 2.0, 3.0], [3.0, 1.0, 0.0, 2.0]])
        assert greedy(scores, np.array([1.0, 0.0]), 2)[0] == 0
        assert greedy(scores, np.array([0.5, 0.5]), 3)[:2] == [1, 0]
        assert regret(np.array([0.0, 1.0, 2.0, 4.0, 5.0]), [3, 1, 2, 0, 4]) == (2.0, 0.0)

    def test_fold_by_fold_it_comes_to_the_same(self) -> None:
        whole = judge(HISTORIES, seed=0, seconds=6.0, families=FAMILIES, folds=3)
        scores: list[FamilyScore] = []
        for number in range(3):
            found = Judging(HISTORIES, seed=0, families=FAMILIES, folds=3).fold(number, seconds=2.0)
            assert found is not None
            scores += [FamilyScore.from_json(json.loads(json.dumps(one.to_json()))) for one in found]
        assert whole is not None
        assert whole == Judgement.of(scores)
        assert len(whole.families) == 12

    @pytest.mark.slow
    def test_a_space_that_knows_what_matters_wins(self) -> None:
        histories, names = families(15, 5)
        found = judge(histories, seed=0, seconds=100.0, families=names)
        assert found is not None
        assert len(found.families) == 15
        assert found.agreement("space") > found.agreement("features") + 0.2
        assert found.regret("space", 1) < min(found.regret("unweighted", 1), found.regret("features", 1))
        assert found.wins

    @pytest.mark.slow
    def test_where_descriptions_say_nothing_it_does_not_win(self) -> None:
        generator = np.random.default_rng(1)
        order = generator.permutation(len(HISTORIES))
        shuffled = [_described_as(one, HISTORIES[place].task) for one, place in zip(HISTORIES, order, strict=True)]
        found = judge(shuffled, seed=0, seconds=6.0, families=FAMILIES, folds=3)
        assert found is not None
        assert not found.wins

    def test_luck_on_a_few_families_is_not_enough(self) -> None:
        def family(number: int, of_space: float) -> FamilyScore:
            rest = {"unweighted": (0.5, 0.2), "features": (0.5, 0.2), "space": (of_space, 0.2)}
            return FamilyScore(f"f{number}", 3, rest, dict.fromkeys(rest, 0.0))  # type: ignore[arg-type]

        assert Judgement(tuple(family(number, 0.4) for number in range(6))).wins
        assert not Judgement((family(0, 0.1), *(family(number, 0.52) for number in range(1, 6)))).wins


def _hidden(one: Task) -> float:
    value = one.features["landmark_linear"]
    assert isinstance(value, float)
    return value


def _described_as(one: TaskHistory, other: Task) -> TaskHistory:
    return replace(one, task=replace(one.task, features=other.features))
