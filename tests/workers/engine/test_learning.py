"""The expert's defaults learn real data."""

import math
from dataclasses import replace

import numpy as np
import torch

from workers.datasets.builtin import load_builtin
from workers.datasets.prepare import prepare
from workers.engine import Engine, trial_spec
from workers.networks import get_network


def best(network_name, data, metric, finish, *, max_epochs, better=max, **changed):
    network = get_network(network_name)
    engine = Engine(network, data, "cpu")
    engine.admit(trial_spec(network, "trial", changed, max_epochs=max_epochs, seed=0))
    return better(report.metrics[metric] for report in finish(engine)["trial"])


def test_mlp_reads_digits(finish):
    data = prepare(load_builtin("digits"), 0, "tabular")
    assert best("mlp", data, "val_accuracy", finish, max_epochs=15) > 0.96


def test_the_perceptrons_default_is_worth_more_than_plain_settings_where_data_are_few_and_noisy(finish):
    # Given digits with noise, and settings without regularisation that an expert would have tried as well
    digits = load_builtin("digits")
    noise = np.random.default_rng(0).standard_normal(digits.X.shape).astype(np.float32)
    noisy = replace(digits, X=digits.X + 0.3 * noise * digits.X.std())
    plain = {"dropout": 0.1, "weight_decay": 0.01, "label_smoothing": 0.0, "activation": "relu", "batch_size": 64}

    # When both are trained on three splits
    splits = [prepare(noisy, seed, "tabular") for seed in range(3)]
    default, other = (
        [best("mlp", data, "val_accuracy", finish, max_epochs=20, **changed) for data in splits]
        for changed in ({}, {**plain, "learning_rate": 3e-3})
    )

    # Then half a point lies between them at least
    assert np.mean(default) > np.mean(other) + 0.005


def test_cnn_reads_digits(finish):
    data = prepare(load_builtin("digits"), 0, "image")
    assert best("cnn", data, "val_accuracy", finish, max_epochs=5) > 0.96


def test_gru_reads_digits_row_by_row(finish):
    data = prepare(load_builtin("digits"), 0, "sequence")
    assert best("gru", data, "val_accuracy", finish, max_epochs=8) > 0.93


def test_transformer_reads_digits_row_by_row(finish):
    data = prepare(load_builtin("digits"), 0, "sequence")
    assert best("transformer", data, "val_accuracy", finish, max_epochs=8, width=48) > 0.93


def test_mlp_predicts_diabetes_better_than_the_mean(finish):
    data = prepare(load_builtin("diabetes"), 0, "tabular")
    predicted = best("mlp", data, "val_rmse", finish, max_epochs=20, better=min)
    mean = data.val_y.double().square().mean().sqrt().item() * data.target_scale
    assert predicted < 0.85 * mean


def unigram_loss(data):
    counts = np.bincount(data.train_x.numpy(), minlength=data.output_size) + 1.0
    return float(-np.log(counts / counts.sum())[data.val_x.numpy()[1:]].mean())


def test_gru_and_transformer_learn_the_letters_of_a_text(named_problem, finish):
    # Given the source of a module, and what knowing the frequency of each letter costs
    data = named_problem("gru-text").data
    import argparse
    import inspect

    text = inspect.getsource(argparse)
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text[:12_000]])
    data = replace(data, train_x=tokens[:10_000], val_x=tokens[10_000:], output_size=len(letters))
    baseline = unigram_loss(data)
    assert baseline < math.log(len(letters))

    # When small networks are trained on it
    for name in ("gru", "transformer"):
        loss = best(
            name,
            data,
            "val_loss",
            finish,
            max_epochs=6,
            better=min,
            width=48,
            depth=1,
            context_length=32,
            batch_size=16,
        )

        # Then they know more than frequencies
        assert loss < baseline - 0.5
