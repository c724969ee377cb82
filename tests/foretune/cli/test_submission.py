"""Submission files: read as people write them, and every fault shown at its line."""

from __future__ import annotations

import pytest

from foretune.cli import submission
from foretune.errors import FieldError, InvalidExperiment, InvalidRequest

JOB = """\
name: digits-mlp
mode: managed
dataset: digits
network: mlp
metric: {name: val_accuracy, goal: maximize}
space:
  - name: learning_rate
    type: float
    low: 1e-5
    high: 1.0
    log: true
  - {name: optimizer, type: categorical, choices: [sgd, on, no]}
  - name: lr_schedule
    type: schedule
budget:
  max_trials: 64
"""


def refusal(text: str) -> str:
    with pytest.raises(InvalidExperiment) as caught:
        submission.read(text, "job.yaml").request()
    return caught.value.message


def test_numbers_and_words_are_what_they_look_like() -> None:
    # given the notations that YAML 1.1 gets wrong: 1e-5 as text, `on` and `no` as booleans
    request = submission.read(JOB, "job.yaml").request()
    assert request.space is not None
    assert request.space[0].low == 1e-5
    assert request.space[1].choices == ["sgd", "on", "no"]
    value = submission.read("a: 2026-01-01\nb: 1_000\nc: 0x10\nd: 12:30\ne: 010\nf: .5\ng: -1E+3\nh: ~", "f").value
    assert value == {
        "a": "2026-01-01",
        "b": "1_000",
        "c": "0x10",
        "d": "12:30",
        "e": 10,
        "f": 0.5,
        "g": -1000.0,
        "h": None,
    }


def test_json_is_read_too() -> None:
    text = '{"mode": "managed", "dataset": "digits", "network": "mlp", "fixed": {"batch_size": 1e2}}'
    assert submission.read(text, "job.json").request().fixed == {"batch_size": 100.0}


def test_an_unknown_key_is_shown_at_its_line_with_the_near_match() -> None:
    assert refusal(JOB.replace("budget:", "bugdet:")) == (
        "job.yaml:15:1: unknown key 'bugdet'; did you mean 'budget'?\n   15 | bugdet:\n      | ^^^^^^"
    )
    assert "job.yaml:11:5: unknown key 'logg' in space[0]; did you mean 'log'?" in refusal(JOB.replace("log:", "logg:"))
    assert "job.yaml:16:3: unknown key 'trials' in budget; did you mean" in refusal(JOB.replace("max_trials", "trials"))


def test_a_wrong_value_is_underlined() -> None:
    message = refusal(JOB.replace("maximize", "upwards"))
    assert "job.yaml:5:36: metric.goal: Input should be 'maximize' or 'minimize'" in message
    assert message.endswith("      | " + " " * 35 + "^^^^^^^")


def test_all_faults_are_shown_in_the_order_of_the_file() -> None:
    message = refusal(JOB.replace("low: 1e-5", "low: 2").replace("type: schedule", "type: curve").replace("64", "0"))
    heads = [line for line in message.splitlines() if line.startswith("job.yaml:")]
    assert [head.split(":")[1] for head in heads] == ["7", "13", "16"]
    assert "low must be less than high" in heads[0]
    assert "type must be one of float, int, categorical, bool, schedule" in heads[1]


def test_a_missing_key_points_at_what_lacks_it() -> None:
    assert "job.yaml:7:5: space[0].high is missing" in refusal(JOB.replace("    high: 1.0\n", ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "job.yaml is empty"),
        ("- a\n- b", "must hold keys and values"),
        ("a: 1\na: 2", "job.yaml:2:1: the key 'a' stands twice; first in line 1"),
        ("a: [1, 2", "job.yaml:1:9: while parsing a flow sequence"),
        ("a: \tb\n  c", "job.yaml:"),
        ("a: &x [*x]", "job.yaml:1:4: this file refers to itself"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: &x [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{'bcdefghi'[i]}: &{'y' * (i + 1)} [{','.join(['*' + ('x' if i == 0 else 'y' * i)] * 10)}]\n"
            for i in range(8)
        ), "holds too much"),
        ("[" * 1200, "cannot be read"),
        ("a: \x00", "is no YAML"),
    ],
    ids=["empty", "list", "twice", "unclosed", "tab", "endless", "code", "bomb", "deep", "nul"],
)  # fmt: skip
def test_files_that_are_no_submissions_are_refused_with_their_place(text: str, message: str) -> None:
    assert message in refusal(text)


def test_what_the_service_refuses_is_shown_at_its_line_too() -> None:
    job = submission.read(JOB, "job.yaml")
    error = job.fault([FieldError(("body", "dataset"), "there is no dataset 'digits'")])
    assert error.message.startswith("job.yaml:3:10: dataset: there is no dataset 'digits'\n    3 | dataset: digits\n")
    # and a place that the file does not have falls back to what holds it
    error = job.fault([FieldError(("body", "budget", "max_epochs"), "is too much")])
    assert error.message.startswith("job.yaml:16:3: budget.max_epochs: is too much")


def test_assignments_replace_single_keys() -> None:
    job = submission.read(JOB, "job.yaml").with_values(
        submission.merge_all(
            [submission.assignment("budget.target=0.98"), submission.assignment("budget.max_epochs=1e1")]
        )
    )
    assert job.value["budget"] == {"max_trials": 64, "target": 0.98, "max_epochs": 10.0}
    assert submission.assignment("labels.team=vision") == {"labels": {"team": "vision"}}
    for wrong in ("budget", "=3", "a..b=1"):
        with pytest.raises(InvalidRequest, match="KEY=VALUE"):
            submission.assignment(wrong)
