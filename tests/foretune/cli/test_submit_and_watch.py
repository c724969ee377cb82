"""`foretune submit` and `foretune watch`: what is sent, what people see, what scripts get."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

JOB = "mode: managed\ndataset: digits\nnetwork: mlp\nname: from-file\nbudget: {max_trials: 2, max_epochs: 3}\n"


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_submit_sends_the_file_and_says_how_to_watch(service, run, job) -> None:
    result = run("submit", job)
    assert result.exit_code == 0, result.stderr
    assert "submitted exp_0000000000000000000001  from-file" in result.stdout
    assert "foretune watch exp_0000000000000000000001" in result.stderr
    assert json.loads(service.sent("POST", "/v1/experiments")[0]) == {
        "mode": "managed", "dataset": "digits", "network": "mlp", "name": "from-file",
        "budget": {"max_trials": 2, "max_epochs": 3},
    }  # fmt: skip


def test_options_replace_what_the_file_says(service, run, job) -> None:
    run(
        "submit",
        job,
        "--name",
        "n",
        "--max-trials",
        9,
        "--seed",
        3,
        "--set",
        "budget.target=0.9",
        "--set",
        "labels.a=b",
    )
    assert json.loads(service.sent("POST", "/v1/experiments")[0]) == {
        "mode": "managed", "dataset": "digits", "network": "mlp", "name": "n", "seed": 3, "labels": {"a": "b"},
        "budget": {"max_trials": 9, "max_epochs": 3, "target": 0.9},
    }  # fmt: skip


def test_submit_works_without_a_file_and_from_stdin(service, run) -> None:
    assert run("submit", "--dataset", "digits", "--network", "mlp").exit_code == 0
    assert run("submit", "-", input=JOB).exit_code == 0
    assert len(service.sent("POST", "/v1/experiments")) == 2
    result = run("submit", "--dataset", "digits")
    assert result.exit_code == 2
    assert "give a FILE.yaml" in result.stderr


def test_a_dataset_file_is_uploaded_first(service, run, tmp_path) -> None:
    (tmp_path / "churn.csv").write_text("a,left\n1,0\n")
    (tmp_path / "job.yaml").write_text("dataset: {file: churn.csv, target: left}\nnetwork: mlp\n")
    result = run("submit", tmp_path / "job.yaml")
    assert result.exit_code == 0, result.stderr
    upload = service.sent("POST", "/v1/datasets")[0]
    assert b'name="target"\r\n\r\nleft' in upload
    assert b"a,left\n1,0\n" in upload
    assert "column id left out" in result.stderr
    assert json.loads(service.sent("POST", "/v1/experiments")[0])["dataset"] == "dst_2"


def test_faults_of_the_file_and_of_the_service_come_with_their_line(service, run, job) -> None:
    # given a file with a typing error: nothing is sent
    job.write_text(JOB.replace("network", "netwrok"))
    result = run("submit", job)
    assert result.exit_code == 2
    assert f"{job}:3:1: unknown key 'netwrok'; did you mean 'network'?" in result.stderr
    assert service.requests == []
    # given a service that knows better
    job.write_text(JOB)
    errors = [{"loc": ["body", "network"], "msg": "there is no network 'mlp'"}]
    problem = {"type": "t", "title": "t", "status": 422, "detail": "d", "code": "invalid_experiment", "errors": errors}
    service.override["POST", "/v1/experiments"] = (422, problem)
    result = run("submit", job)
    assert result.exit_code == 2
    assert f"{job}:3:10: network: there is no network 'mlp'" in result.stderr


def test_submit_and_watch_ends_with_the_recommendation(service, run, job) -> None:
    result = run("submit", job, "--watch")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any("trial 1 (gp) learning_rate=0.01 optimizer=adamw" in line for line in lines)
    assert any("best 0.9712 by trial 2, epoch 3" in line for line in lines)
    assert "100 %  experiment COMPLETED: all 2 trials are done" in lines
    assert "best val_accuracy 0.9712  trial 2, epoch 3" in result.stdout
    assert "recommended  confidence high; 153 histories with 9800 trials" in result.stdout
    assert "learning rate ▅██▅▁  peak 0.1, warm-up 10%, plateau 30%, decay^1 to 0%" in result.stdout


def test_submit_and_watch_as_json_gives_one_document_a_line(service, run, job) -> None:
    result = run("submit", job, "--watch", "--json")
    assert result.exit_code == 0
    submitted, *events = [json.loads(line) for line in result.stdout.splitlines()]
    assert submitted["id"] == "exp_0000000000000000000001"
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))


def test_watch_as_json_gives_every_event_as_a_line(service, run) -> None:
    service.add()
    result = run("watch", "last", "--json")
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1] == {
        "sequence": len(events), "type": "experiment.state",
        "data": {"state": "COMPLETED", "reason": "all 2 trials are done"},
    }  # fmt: skip


def test_ctrl_c_leaves_the_experiment_running(service, start) -> None:
    # given a watch that has shown something
    service.add()
    service.hold = 4
    process = start("watch", "job-1")
    assert process.stdout is not None
    assert b"experiment RUNNING" in process.stdout.readline()
    # when
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    # then it says how to come back
    assert process.returncode == 130
    assert b"exp_0000000000000000000001 goes on" in said
    assert b"foretune watch exp_0000000000000000000001" in said
    assert b"Traceback" not in said
    assert service.experiments["exp_0000000000000000000001"]["state"] == "QUEUED"


def test_a_reader_that_has_seen_enough_is_no_error(service, start) -> None:
    service.add()
    service.hold = 3
    process = start("watch", "last", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    service.hold = -1
    _, said = process.communicate(timeout=20)
    assert said == b""
    assert process.returncode == 0


def test_brackets_in_names_are_text_and_no_markup(service, run) -> None:
    metric = {"name": "loss[red]", "goal": "minimize"}
    made = service.add(name="run [/tmp/a]", metric=metric, reason="because [/b]", labels={"a[/b]": "c"})
    for command in ("status", "list", "trials"):
        assert run(command, *(["last"] if command != "list" else [])).exit_code == 0
    shown = run("status", str(made["id"])).stdout
    assert "run [/tmp/a]" in shown
    assert "minimize loss[red]" in shown
    assert "because [/b]" in shown
    assert "x [/c]" in run("submit", "--dataset", "digits", "--network", "mlp", "--name", "x [/c]").stdout


def test_what_the_options_say_has_no_line(service, run) -> None:
    result = run("submit", "--dataset", "digits", "--network", "mlp", "--max-trials", "0")
    assert result.exit_code == 2
    assert "the options: budget.max_trials: " in result.stderr
    assert ":1:1" not in result.stderr


def test_a_data_set_that_looks_like_a_file_is_missed_as_both(service, run) -> None:
    problem = {
        "type": "t", "title": "t", "status": 422, "detail": "no", "code": "invalid_experiment",
        "errors": [{"loc": ["body", "dataset"], "msg": "there is no data set 'nope.csv'"}],
    }  # fmt: skip
    service.override["POST", "/v1/experiments"] = (422, problem)
    result = run("submit", "--dataset", "nope.csv", "--network", "mlp")
    assert "there is no data set 'nope.csv'. There is no such file here either" in result.stderr


def test_a_live_view_is_redrawn_in_a_terminal(service, start) -> None:
    # given a terminal
    import os
    import pty

    service.add()
    service.hold = 9
    parent, child = pty.openpty()
    process = start("watch", "last", stdin=child, stdout=child, stderr=subprocess.STDOUT)
    os.close(child)
    seen = b""
    deadline = time.monotonic() + 30
    # when it has drawn the running trial, the experiment goes on to its end
    while b"val_accuracy" not in seen or b"0.8" not in seen:
        assert time.monotonic() < deadline
        seen += os.read(parent, 65536)
    service.hold = -1
    try:
        while chunk := os.read(parent, 65536):
            seen += chunk
    except OSError:
        pass  # the terminal's other end was closed
    assert process.wait(timeout=20) == 0
    os.close(parent)
    # then the picture was redrawn and the result stands below
    assert b"Ctrl-C leaves" in seen
    assert "█".encode() in seen
    assert b"recommended" in seen.split(b"Ctrl-C leaves")[-1]
