"""Preparation: fitted on the training part alone, and reported in original units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from foretune.errors import InvalidExperiment
from foretune.wire.datasets import Task
from workers.datasets.builtin import load_builtin
from workers.datasets.dataset import Column, Dataset, Modality
from workers.datasets.encode import fit_table
from workers.datasets.prepare import prepare, prepared_key, views
from workers.datasets.split import split


def test_inputs_are_standardised_on_the_training_part() -> None:
    wine = load_builtin("wine")
    data = prepare(wine, seed=0, view="tabular")
    parts = split(wine, seed=0)
    theirs = StandardScaler().fit(wine.X[parts.train].astype(np.float64))
    np.testing.assert_allclose(data.train_x.numpy(), theirs.transform(wine.X[parts.train]), atol=1e-5)
    np.testing.assert_allclose(data.val_x.numpy(), theirs.transform(wine.X[parts.validation]), atol=1e-5)
    assert data.train_y.tolist() == wine.y[parts.train].tolist()
    assert data.val_y.tolist() == wine.y[parts.validation].tolist()


def test_channels_of_an_image_are_standardised_on_the_training_part() -> None:
    data = prepare(load_builtin("digits"), seed=0, view="image")
    assert float(data.train_x.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(data.train_x.std(correction=0)) == pytest.approx(1.0, abs=1e-6)
    assert abs(float(data.val_x.mean())) > 1e-5


def test_what_validates_does_not_leak() -> None:
    # Given a table and its split,
    def table(changed: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Dataset:
        X = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
        X[:, 1] = np.arange(200) % 3
        X[changed] = np.nan
        y = (np.arange(200) % 2).astype(np.int64)
        columns = (Column("number"), Column("word", "categorical", ("a", "b", "c")))
        return Dataset("t", Task.CLASSIFICATION, "tabular", X, y, columns=columns, class_names=("n", "y"))

    original = table(np.zeros(0, np.int64))
    parts = split(original, seed=0)
    # when only validation rows change, and the same rows are picked,
    X = original.X.astype(np.float32)
    changed = table(parts.validation).X.astype(np.float32)
    before = fit_table(X[parts.train], original.columns)
    after = fit_table(changed[parts.train], original.columns)
    # then nothing that was fitted changes.
    assert before.names == after.names
    np.testing.assert_array_equal(before.apply(X), after.apply(X))


def test_regression_targets_are_scaled_and_come_back() -> None:
    diabetes = load_builtin("diabetes")
    data = prepare(diabetes, seed=1, view="tabular")
    parts = split(diabetes, seed=1)
    train = diabetes.y[parts.train].astype(np.float64)
    assert data.target_mean == pytest.approx(train.mean())
    assert data.target_scale == pytest.approx(train.std())
    assert float(data.train_y.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(data.train_y.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(data.in_original_units(data.val_y).numpy(), diabetes.y[parts.validation], rtol=1e-5)
    assert (data.output_size, data.train_y.dtype, data.train_y.ndim) == (1, torch.float32, 1)


@pytest.mark.parametrize(("view", "shape"), [("image", (1, 8, 8)), ("tabular", (64,)), ("sequence", (8, 8))])
def test_an_image_can_be_seen_three_ways(view: Modality, shape: tuple[int, ...]) -> None:
    digits = load_builtin("digits")
    data = prepare(digits, seed=0, view=view)
    assert data.input_shape == shape
    assert data.train_x.shape == (len(data.train_y), *shape)
    assert data.val_x.shape == (len(data.val_y), *shape)
    assert (data.train_x.dtype, data.train_y.dtype, data.output_size) == (torch.float32, torch.int64, 10)
    assert len(data.train_y) + len(data.val_y) == 1797


def test_the_steps_of_an_image_are_its_rows() -> None:
    digits = load_builtin("digits")
    image = prepare(digits, 0, "image").train_x
    assert torch.equal(prepare(digits, 0, "sequence").train_x, image[:, 0])


def test_colours_stand_side_by_side_in_a_row() -> None:
    X = np.random.default_rng(0).random((10, 3, 8, 9), dtype=np.float32)
    colour = Dataset("c", Task.CLASSIFICATION, "image", X, np.arange(10) % 2, class_names=("a", "b"))
    image, rows = prepare(colour, 0, "image").train_x, prepare(colour, 0, "sequence").train_x
    assert rows.shape[1:] == (8, 27)
    assert torch.equal(rows[2, 5], torch.cat([image[2, channel, 5] for channel in range(3)]))


def test_missing_steps_of_a_sequence_are_the_mean() -> None:
    X = np.random.default_rng(0).normal(5, 2, (20, 6, 2)).astype(np.float32)
    X[3, 4, 1] = np.nan
    sequence = Dataset("s", Task.CLASSIFICATION, "sequence", X, np.arange(20) % 2, class_names=("a", "b"))
    data = prepare(sequence, 0, "sequence")
    together = torch.cat([data.train_x, data.val_x])
    assert torch.isfinite(together).all()
    assert int((together == 0).sum()) == 1
    assert views(sequence) == ("sequence", "tabular")
    assert prepare(sequence, 0, "tabular").input_shape[0] in (12, 13)  # 13 when the missing one trains


def test_a_text_is_token_ids() -> None:
    ids = np.arange(100, dtype=np.int32) % 5
    text = Dataset("t", Task.LANGUAGE_MODELLING, "text", ids, np.zeros(0, np.int64), vocabulary=tuple("abcde"))
    data = prepare(text, seed=0, view="text")
    assert torch.cat([data.train_x, data.val_x]).tolist() == ids.tolist()
    assert (data.vocabulary_size, data.output_size, data.input_shape) == (5, 5, ())
    assert (data.train_x.dtype, len(data.train_y)) == (torch.int64, 0)


def test_an_impossible_view_is_refused() -> None:
    with pytest.raises(InvalidExperiment, match=r"'iris' \(tabular\) cannot be read as image; it can be .* tabular"):
        prepare(load_builtin("iris"), seed=0, view="image")


def test_the_key_names_what_the_tensors_depend_on() -> None:
    iris = load_builtin("iris")
    data = prepare(iris, seed=4, view="tabular")
    assert data.key == prepared_key(iris.content_hash, 4, "tabular")
    others = {
        prepared_key(iris.content_hash, 5, "tabular"),
        prepared_key(iris.content_hash, 4, "image"),
        prepared_key("0" * 64, 4, "tabular"),
    }
    assert len(others | {data.key}) == 4
    again = prepare(load_builtin("iris"), seed=4, view="tabular")
    assert torch.equal(again.train_x, data.train_x)
    assert torch.equal(again.val_y, data.val_y)
