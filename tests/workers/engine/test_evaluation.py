"""Metrics against independent answers."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import nn

from workers.engine.device_data import on_device
from workers.engine.evaluation import GOALS, METRICS, evaluate, trivial_loss


def evaluated(module, data, context_length=0):
    placed = on_device(data, torch.device("cpu"))
    with torch.no_grad():
        (metrics,) = evaluate(lambda x: module(x)[None], placed, data.val_x, context_length=context_length)
    return metrics


def test_classification_metrics_are_those_of_scikit_learn(named_problem):
    data = named_problem("mlp-tabular").data
    module = nn.Linear(64, 10)
    found = evaluated(module, data)
    with torch.no_grad():
        probabilities = module(data.val_x).double().softmax(1).numpy()
    true = data.val_y.numpy()
    assert found["val_accuracy"] == sklearn_metrics.accuracy_score(true, probabilities.argmax(1))
    assert found["val_loss"] == pytest.approx(sklearn_metrics.log_loss(true, probabilities, labels=range(10)), rel=1e-5)


def test_regression_metrics_are_in_original_units(named_problem):
    data = named_problem("mlp-regression").data
    module = nn.Linear(data.input_shape[0], 1)
    found = evaluated(module, data)
    with torch.no_grad():
        predicted = data.in_original_units(module(data.val_x).squeeze(-1).double()).numpy()
    true = data.in_original_units(data.val_y.double()).numpy()
    assert found["val_rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(true, predicted), rel=1e-5)
    assert found["val_mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(true, predicted), rel=1e-5)
    assert found["val_r2"] == pytest.approx(sklearn_metrics.r2_score(true, predicted), rel=1e-4)


def test_equal_targets_give_a_finite_r2(named_problem):
    data = named_problem("mlp-regression").data
    constant = replace(data, val_y=torch.ones_like(data.val_y))
    assert evaluated(nn.Linear(data.input_shape[0], 1), constant)["val_r2"] == 0.0


class Bigram(nn.Module):
    """Predicts from the present character alone, so that windows make no difference."""

    def __init__(self, vocabulary):
        super().__init__()
        self.table = nn.Embedding(vocabulary, vocabulary)

    def forward(self, tokens):
        return self.table(tokens)


@pytest.mark.parametrize("context_length", [2, 7, 64, 10_000])
def test_every_character_but_the_first_counts_once(named_problem, context_length):
    data = named_problem("gru-text").data
    module = Bigram(data.output_size)
    found = evaluated(module, data, context_length)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(module(data.val_x[:-1]), data.val_x[1:]).item()
    assert found["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert found["val_perplexity"] == pytest.approx(math.exp(expected), rel=1e-4)
    assert found["val_bits_per_character"] == pytest.approx(expected / math.log(2), rel=1e-5)


def test_chunks_do_not_change_the_result(named_problem):
    data = named_problem("mlp-tabular").data
    many = replace(data, val_x=data.val_x.repeat(50, 1), val_y=data.val_y.repeat(50))
    module = nn.Linear(64, 10)
    assert evaluated(module, many) == pytest.approx(evaluated(module, data), rel=1e-5)


def test_the_trivial_loss_is_what_knowing_nothing_costs(named_problem):
    assert trivial_loss(named_problem("mlp-tabular").data) == pytest.approx(math.log(10))
    assert trivial_loss(named_problem("mlp-regression").data) >= 1.0


def test_every_metric_but_the_learning_rate_has_a_goal():
    for names in METRICS.values():
        assert set(names) - set(GOALS) == {"learning_rate"}
