"""CSV uploads: what is read, what is left out with a remark, what is refused and with which words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from foretune.errors import InvalidDataset
from foretune.wire.datasets import Task
from workers.datasets.dataset import Column, Dataset
from workers.datasets.limits import DatasetLimits
from workers.datasets.parse import parse

Upload = Callable[..., Dataset]


@pytest.fixture
def upload(tmp_path: Path) -> Upload:
    def send(content: str | bytes, filename: str = "file.csv", **options: object) -> Dataset:
        path = tmp_path / "upload"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return parse(path, filename, **options)  # type: ignore[arg-type]

    return send


def lines(header: str, count: int, row: Callable[[int], str]) -> str:
    return "\n".join([header, *(row(number) for number in range(count))]) + "\n"


def test_mixed_types_missing_values_and_quoted_headers(upload: Upload) -> None:
    content = (
        '"size, cm","colour","is ""new""",kind\n'
        "1.5,red,true,a\n"
        "NA,blue,FALSE,b\n"
        '?," red ",True,a\n'
        "-2e1,,null,b\n"
        "NaN,blue,false,a\n"
    )
    dataset = upload(content, target="kind")
    assert dataset.columns == (
        Column("size, cm"),
        Column("colour", "categorical", ("blue", "red")),
        Column('is "new"', "categorical", ("false", "true")),
    )
    nan = np.nan
    np.testing.assert_array_equal(
        dataset.X, np.array([[1.5, 1, 1], [nan, 0, 0], [nan, 1, 1], [-20, nan, nan], [nan, 0, 0]], np.float32)
    )
    assert dataset.class_names == ("a", "b")
    assert dataset.y.tolist() == [0, 1, 0, 1, 0]
    assert dataset.name == "file"


@pytest.mark.parametrize(("delimiter", "named"), [(",", None), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_the_delimiter_is_found(upload: Upload, delimiter: str, named: str | None) -> None:
    content = lines("a,b,c", 6, lambda i: f"{i}.5,{i * i},{i % 2}").replace(",", delimiter)
    dataset = upload(content)
    assert dataset.feature_names == ("a", "b")
    assert dataset.X[2].tolist() == [2.5, 4.0]
    assert any(named in warning for warning in dataset.warnings) if named else True


def test_decimal_commas_are_numbers_where_semicolons_separate(upload: Upload) -> None:
    dataset = upload("a;b\n1,5;x\n-2;y\n,25;x\n4,0;y\n")
    assert dataset.columns == (Column("a"),)
    assert dataset.X[:, 0].tolist() == [1.5, -2.0, 0.25, 4.0]


def test_commas_between_thousands_are_numbers(upload: Upload) -> None:
    dataset = upload('a,b\n"1,234.5",x\n"2,000,000",y\n12,x\n-3,y\n')
    assert dataset.X[:, 0].tolist() == [1234.5, 2_000_000.0, 12.0, -3.0]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_and_any_line_end_are_fine(upload: Upload, line_end: str) -> None:
    content = "\ufeffa,b\n1,x\n2,y\n\n3,x\n4,y".replace("\n", line_end)
    dataset = upload(content, target="b")
    assert dataset.feature_names == ("a",)
    assert dataset.X[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_line_breaks_inside_quotes_belong_to_the_value(upload: Upload) -> None:
    dataset = upload('a,b\n1,"x\ny"\n2,z\n3,"x\ny"\n4,z\n')
    assert dataset.class_names == ("x\ny", "z")


def test_dates_become_days(upload: Upload) -> None:
    days = lines("day,moment,y", 8, lambda i: f"1970-01-0{i + 2},1970-01-01T{i:02d}:00:00Z,{i % 2}")
    dataset = upload(days)
    assert dataset.X[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(dataset.X[:, 1], np.arange(8) / 24, rtol=1e-6)
    assert any("days since 1970-01-01" in warning for warning in dataset.warnings)


def test_columns_that_say_nothing_are_dropped_with_a_remark(upload: Upload) -> None:
    content = lines(
        ",gone,same,comment,customer_id,x,y",
        60,
        lambda i: f"{i},NA,7,text {i},{9000 - 7 * i},{i % 5},{'ab'[i % 2]}",
    )
    dataset = upload(content)
    assert dataset.feature_names == ("x",)
    remarks = "\n".join(dataset.warnings)
    for column, reason in [
        ("index", "it numbers the rows"),
        ("gone", "every value is missing"),
        ("same", "it is constant (7)"),
        ("comment", "its 60 distinct texts in 60 rows look like an id or free text"),
        ("customer_id", "it numbers the rows"),
    ]:
        assert f"column {column!r} was dropped: {reason}" in remarks


def test_one_odd_word_among_numbers_means_missing(upload: Upload) -> None:
    content = lines("x,y", 40, lambda i: f"{'unknown' if i == 7 else i * 1.5},{i % 2}")
    dataset = upload(content)
    assert dataset.columns == (Column("x"),)
    assert np.flatnonzero(np.isnan(dataset.X[:, 0])).tolist() == [7]
    assert "column 'x': 'unknown' among numbers was read as missing" in dataset.warnings


def test_infinite_numbers_are_missing(upload: Upload) -> None:
    dataset = upload("x,y\n1,a\ninf,b\n1e300,a\n-2,b\n")
    assert np.isnan(dataset.X[:, 0]).tolist() == [False, True, True, False]
    assert any("2 infinite or too large" in warning for warning in dataset.warnings)


def test_numbers_far_from_zero_keep_their_digits(upload: Upload) -> None:
    dataset = upload(lines("time,y", 50, lambda i: f"{1_700_000_000 + i},{i % 2}"))
    assert dataset.columns == (Column("time", offset=1_700_000_000.0),)
    assert dataset.X[:, 0].tolist() == list(range(50))


@pytest.mark.parametrize(
    ("row", "task", "class_names"),
    [
        (lambda i: "spam" if i % 2 else "ham", Task.CLASSIFICATION, ("ham", "spam")),
        (lambda i: str(i % 2 == 0), Task.CLASSIFICATION, ("false", "true")),
        (lambda i: str(i % 12), Task.CLASSIFICATION, tuple(str(n) for n in range(12))),
        (lambda i: f"{i % 12}.0", Task.CLASSIFICATION, tuple(str(n) for n in range(12))),
        (lambda i: str(i % 25), Task.REGRESSION, ()),
        (lambda i: str(i % 2 / 2), Task.REGRESSION, ()),
    ],
    ids=["texts", "booleans", "few whole numbers", "few whole floats", "many whole numbers", "fractions"],
)
def test_the_task_is_guessed(
    upload: Upload, row: Callable[[int], str], task: Task, class_names: tuple[str, ...]
) -> None:
    dataset = upload(lines("x,y", 100, lambda i: f"{i % 7},{row(i)}"))
    assert (dataset.task, dataset.class_names) == (task, class_names)
    assert any("task was not given" in warning for warning in dataset.warnings)


def test_a_stated_task_goes_before_the_guess(upload: Upload) -> None:
    content = lines("x,y", 100, lambda i: f"{i % 7},{i % 2 / 2}")
    assert upload(content, task=Task.CLASSIFICATION).class_names == ("0", "0.5")
    numbers = lines("x,y", 100, lambda i: f"{i % 7},{i % 2}")
    regression = upload(numbers, task=Task.REGRESSION)
    assert regression.y.dtype == np.float32
    assert regression.y[:4].tolist() == [0, 1, 0, 1]


def test_the_last_column_is_the_target_unless_another_is_named(upload: Upload) -> None:
    content = "x,y,z\n1,a,5\n2,b,6\n3,a,5\n4,b,6\n"
    assert upload(content).target_name == "z"
    named = upload(content, target="y")
    assert (named.target_name, named.feature_names) == ("y", ("x", "z"))


def test_numbered_columns_are_a_header(upload: Upload) -> None:
    assert upload(lines("0,1,2", 10, lambda i: f"{i}.5,{i * i},{i % 2}")).feature_names == ("0", "1")


TWO_COLUMNS = "alpha,beta\n1,2\n2,3\n1,2\n2,3\n"
REFUSALS: list[tuple[str, str | bytes, dict[str, object], str]] = [
    ("empty file", "", {}, r"the file is empty \(0 bytes\)"),
    ("only blanks", " \n\n", {}, "holds no text"),
    ("header alone", "a,b\n", {}, "no data rows; at least 4"),
    ("one row", "a,b\n1,2\n", {}, "only one data row; at least 4"),
    ("one column", "a\n1\n2\n3\n4\n", {}, r"only one column \('a'\)"),
    ("separated by spaces", "a b\n1 2\n3 4\n", {}, "separated by spaces: save the file with commas"),
    ("separated by colons", "a:b\n1:2\n3:4\n", {}, "separated by ':': save the file with commas"),
    ("short row", "a,b\n1,2\n\n3\n4,5\n", {}, r"line 4: 1 value\(s\), but the header has 2 columns"),
    ("long row", "a,b\n1,2\n3,4,5\n", {}, r"line 3: 3 value\(s\), but the header has 2 columns"),
    ("trailing commas", "a,b\n1,2,\n3,4,\n", {}, "line 2: 3 .* remove the delimiter at the end"),
    ("row after a broken line", 'a,b\n"x\ny",2\n3,4,5\n', {}, "line 4: 3 value"),
    ("open quote", 'a,b\n1,2\n"3,4\n5,6\n', {}, "line 3: .* is a quote never closed"),
    ("repeated header", "a,b,a\n1,2,3\n", {}, "line 1: column name 'a' appears more than once"),
    ("no header", "5.1,3.5,setosa\n4.9,3.0,setosa\n", {}, "first line looks like data"),
    ("not UTF-8", b"a,b\n1,x\n2,caf\xe9\n", {}, r"byte 0xe9 at offset 13 \(line 3\)"),
    ("not UTF-8 after a mark", b"\xef\xbb\xbfa,b\n1,\xff\n", {}, r"byte 0xff at offset 9 \(line 2\)"),
    ("UTF-16", "a,b\n1,2\n".encode("utf-16"), {}, "the file is UTF-16"),
    ("zero byte", "a,b\n1,\x002\n", {}, "line 2 holds a zero byte"),
    (
        "target beyond 2^53",
        "a,b\n1,9007199254740992\n2,9007199254740993\n3,9007199254740992\n4,9007199254740993\n",
        {},
        r"whole ones beyond 2\^53 are not told apart; subtract a constant",
    ),
    ("constant target", "a,b\n1,z\n2,z\n3,z\n4,z\n", {}, "target 'b' is constant: every row has 'z'"),
    ("missing target", "a,b\n1,x\n2,\n3,x\n4,?\n5,x\n", {}, r"target 'b' is missing .* in 2 row\(s\): 2, 4"),
    ("all of it missing", "a,b\n1,\n2,\n3,\n4,\n", {}, "target 'b' is missing in every row"),
    (
        "unknown target",
        "alpha,beta\n1,2\n2,3\n1,2\n2,3\n",
        {"target": "Betta"},
        "did you mean 'beta'.* 'alpha', 'beta'",
    ),
    (
        "unknown target, nothing near",
        "alpha,beta\n1,2\n2,3\n1,2\n2,3\n",
        {"target": "zz"},
        "'zz' is not in the file; its columns",
    ),
    ("date target", lines("a,b", 9, lambda i: f"{i},2024-01-0{i + 1}"), {}, "target 'b' holds dates"),
    ("lonely classes", "a,b\n1,x\n2,x\n3,y\n4,z\n", {}, "class 'y', 'z' has only one row"),
    (
        "10,000 classes",
        lines("a,b", 20_000, lambda i: f"{i % 7},user{i % 10_000}"),
        {},
        "10,000 classes; at most 1,000 .* id or a regression target",
    ),
    (
        "10,000 numeric classes",
        lines("a,b", 20_000, lambda i: f"{i % 7},{i % 10_000}"),
        {"task": Task.CLASSIFICATION},
        r"10,000 classes.*\(task regression\)",
    ),
    (
        "words for a regression",
        "a,b\n1,5\n2,6\n3,seven\n4,8\n",
        {"task": Task.REGRESSION},
        "must hold numbers for regression; row 3 has 'seven'",
    ),
    (
        "one odd word in the target",
        lines("a,b", 40, lambda i: f"{i % 7},{'unknown' if i == 30 else i}"),
        {"task": Task.REGRESSION},
        "row 31 has 'unknown'",
    ),
    ("infinite target", "a,b\n1,5.5\n2,inf\n3,7\n4,8\n", {}, r"missing \(or not finite\) in 1 row\(s\): 2"),
    ("no feature left", "a,b\n7,x\n7,y\n7,x\n7,y\n", {}, "no usable feature column is left: .*constant"),
    ("modality", "a,b\n1,2\n", {"modality": "image"}, "modality 'image' does not fit"),
]


@pytest.mark.parametrize(
    ("content", "options", "message"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_what_is_wrong_is_said_precisely(
    upload: Upload, content: str | bytes, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidDataset, match=message) as refusal:
        upload(content, **options)
    assert refusal.value.code == "invalid_dataset"


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (DatasetLimits(size_bytes=99), "101 bytes; at most 99"),
        (DatasetLimits(size_bytes=100), "101 bytes; at most 100"),
        (DatasetLimits(rows=15), "16 rows; at most 15"),
        (DatasetLimits(columns=2), "3 columns; at most 2"),
        (DatasetLimits(cells=47), "48 cells; at most 47"),
    ],
)
def test_limits_are_kept_to_the_unit(upload: Upload, limits: DatasetLimits, message: str) -> None:
    content = lines("a,b,y", 16, lambda i: f"{i % 4},{i % 7},{i % 2}").rstrip("\n")
    assert len(content) == 101
    with pytest.raises(InvalidDataset, match=message):
        upload(content, limits=limits)
    exact = DatasetLimits(size_bytes=101, rows=16, columns=3, cells=48)
    assert upload(content, limits=exact).X.shape == (16, 2)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\x93NUMPY\x01", "single .npy array"),
        (b"\x1f\x8b\x08", "gzip archive"),
        (b"\x80\x04\x95", "pickle, which is never loaded"),
        (b"%PDF-1.7", "PDF document"),
    ],
)
def test_other_formats_are_named(upload: Upload, start: bytes, message: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        upload(start + b" rest of the file")


def test_an_unknown_name_needs_a_task_or_a_target(upload: Upload) -> None:
    content = "a,b\n1,x\n2,y\n3,x\n4,y\n"
    with pytest.raises(InvalidDataset, match=r"cannot tell what 'data\.bin' is"):
        upload(content, filename="data.bin")
    assert upload(content, filename="data.bin", target="b").modality == "tabular"
