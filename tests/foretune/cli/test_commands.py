"""Every command against a service: what people read, what scripts get, and the exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from foretune.cli.main import app

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


def test_status_list_trials_and_best(service, run) -> None:
    service.add()
    second = service.add()
    service.finish(str(second["id"]))
    assert "val_accuracy 0.9712" in run("status", "last").stdout
    assert "2 COMPLETED of 2" in run("status", "job-2").stdout
    assert json.loads(run("status", "job-1", "--json").stdout)["state"] == "QUEUED"
    listed = run("list").stdout.splitlines()
    assert "exp_0000000000000000000002" in listed[1]
    assert "exp_0000000000000000000001" in listed[2]
    assert json.loads(run("list", "--json").stdout)[0]["name"] == "job-2"
    trials = run("trials", "last").stdout
    assert "out of memory" in trials
    best_first = json.loads(run("trials", "last", "--best-first", "--json").stdout)
    assert [trial["number"] for trial in best_first] == [2, 1, 3]
    assert "learning_rate=0.01235 optimizer=adamw" in run("best", "last").stdout
    assert json.loads(run("best", "last", "--json").stdout)["value"] == 0.9712
    nothing = run("best", "job-1")
    assert nothing.exit_code == 4
    assert "no trial of exp_0000000000000000000001 has given a value yet" in nothing.stderr


def test_a_wrong_state_names_those_that_there_are(service, run) -> None:
    result = run("list", "--state", "done")
    assert result.exit_code == 2
    assert "COMPLETED" in result.stderr
    assert run("list", "--state", "completed").exit_code == 0


@pytest.mark.parametrize("wanted", ["last", "job-2", "exp_0000000000000000000002", "002"])
def test_an_experiment_goes_by_many_names(service, run, wanted: str) -> None:
    service.add()
    service.add()
    assert json.loads(run("status", wanted, "--json").stdout)["name"] == "job-2"


def test_an_unclear_or_unknown_name_is_refused(service, run) -> None:
    nothing = run("status", "last")
    assert (nothing.exit_code, "there is no experiment yet" in nothing.stderr) == (4, True)
    service.add()
    service.add()
    unclear = run("status", "exp_000")
    assert unclear.exit_code == 2
    assert (
        "fits 2 experiments: exp_0000000000000000000002 (job-2), exp_0000000000000000000001 (job-1)" in unclear.stderr
    )
    unknown = run("status", "digits-cnn", "--json")
    assert unknown.exit_code == 4
    assert json.loads(unknown.stderr)["error"]["code"] == "not_found"
    assert run("status", "exp_0000000000000000000009").exit_code == 4


def test_pause_resume_cancel_and_delete(service, run) -> None:
    one = service.add()
    for verb, state in (("pause", "PAUSED"), ("resume", "RUNNING"), ("cancel", "CANCELED")):
        result = run(verb, "last")
        assert f"is {state}" in result.stderr
        assert one["state"] == state
    refused = run("delete", "last")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert run("delete", "last", "--yes").exit_code == 0
    assert service.experiments == {}


def test_a_conflict_is_exit_code_four(service, run) -> None:
    one = service.add()
    problem = {"type": "t", "title": "t", "status": 409, "detail": "it is COMPLETED", "code": "illegal_transition"}
    service.override["POST", f"/v1/experiments/{one['id']}/pause"] = (409, problem)
    result = run("pause", "last")
    assert result.exit_code == 4
    assert "error (illegal_transition) it is COMPLETED" in result.stderr


def test_datasets_and_networks(service, run, tmp_path) -> None:
    assert "1797" in run("datasets").stdout
    assert json.loads(run("datasets", "list", "--json").stdout)[0]["name"] == "digits"
    path = tmp_path / "churn.csv"
    path.write_text("a,b\n1,2\n")
    added = run("datasets", "add", path, "--target", "b", "--task", "regression")
    assert added.stdout == "dst_2  churn\n"
    assert "note: column id left out" in added.stderr
    missing = run("datasets", "add", tmp_path / "nowhere.csv")
    assert missing.exit_code == 2
    assert "cannot be read: No such file" in missing.stderr
    assert "a multi-layer perceptron" in run("networks").stdout
    space = run("networks", "mlp").stdout
    assert "1e-05 … 1, log" in space
    assert "optimizer in ['sgd']" in space
    unknown = run("networks", "cnn")
    assert unknown.exit_code == 4
    assert "there is no network 'cnn'; there are mlp" in unknown.stderr


def test_recommend_in_its_three_ways(service, run, tmp_path) -> None:
    service.add()
    assert "portfolio  val_accuracy 0.97 (0.94 … 0.985)" in run("recommend", "--experiment", "last").stdout
    assert (
        json.loads(run("recommend", "--dataset", "digits", "--network", "mlp", "--json").stdout)["confidence"] == "high"
    )
    (tmp_path / "job.yaml").write_text("space: [{name: lr, type: float, low: 1e-5, high: 1}]\n")
    described = run(
        "recommend", "--feature", "rows=50000", "--feature", "modality=image", "--space", tmp_path / "job.yaml",
        "--metric", "val_loss:minimize", "-n", 1,
    )  # fmt: skip
    assert described.exit_code == 0, described.stderr
    assert json.loads(service.sent("POST", "/v1/recommendations")[-1]) == {
        "features": {"rows": 50000.0, "modality": "image"}, "metric": {"name": "val_loss", "goal": "minimize"},
        "space": [{"name": "lr", "type": "float", "low": 1e-5, "high": 1.0, "log": False}],
        "max_epochs": 20, "count": 1,
    }  # fmt: skip
    assert run("recommend").exit_code == 2
    assert run("recommend", "--dataset", "digits").exit_code == 2


def test_import_names_wrong_lines_and_keeps_the_rest(service, run, tmp_path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text('{"name": "a"}\n{}\n{"name": "b"}\n')
    result = run("import", path)
    assert result.exit_code == 1
    assert result.stdout == "2 imported, 0 known already, 1 wrong\n"
    assert f"{path}:2: no trials" in result.stderr
    assert run("import", "-", input='{"name": "a"}\n').exit_code == 0


def test_export_to_a_file_and_to_a_pipe(service, run, tmp_path) -> None:
    service.add()
    assert run("export", "last").stdout == "trial,epoch,value\n1,1,0.5\n"
    assert run("export", "last", "-o", tmp_path / "trials.jsonl").exit_code == 0
    assert (tmp_path / "trials.jsonl").read_text().startswith("trial,epoch")
    assert any("format=jsonl" in path for _, path, _ in service.requests)
    refused = run("export", "last", "-o", tmp_path / "no" / "where.csv")
    assert refused.exit_code == 1
    assert "cannot be written" in refused.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["trials.jsonl"]


def test_what_steers_a_terminal_is_not_printed(service, run) -> None:
    # given names and reasons that an older service took
    evil = "job\x1b[2J\u202e\x9b1\nx"
    service.add(name=evil, state="FAILED", reason=evil, labels={evil: evil})
    for command in (("list",), ("status", "last"), ("watch", "last")):
        printed = run(*command).stdout
        assert not set("\x1b\u202e\x9b").intersection(printed), command
    assert "job[2J1 x" in run("list").stdout
    # then JSON keeps them, as escapes
    printed = run("status", "last", "--json").stdout
    assert not set("\x1b\u202e\x9b").intersection(printed)
    assert json.loads(printed)["name"] == evil


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


def test_list_says_when_there_are_more(service, run) -> None:
    for _ in range(3):
        service.add()
    assert "the newest 2; there are more: --limit shows them" in run("list", "-n", "2").stderr
    assert "job-1" not in run("list", "-n", "2").stdout
    assert "there are more" not in run("list", "-n", "3").stderr


def test_doctor_finds_what_is_wrong(service, run) -> None:
    # given all is well
    good = run("doctor", "--no-local")
    assert good.exit_code == 0, good.stdout
    assert "valid, from FORETUNE_API_KEY" in good.stdout
    assert f"{service.url} answers (the address is from FORETUNE_URL)" in good.stdout
    # given no worker and another key
    service.parts["workers"] = "none was seen in the last 10 s"
    service.key = "another"
    bad = run("doctor", "--no-local", "--json")
    assert bad.exit_code == 1
    wrong = {check["name"]: check["detail"] for check in json.loads(bad.stdout) if not check["ok"]}
    assert wrong == {"key": "refused (401), from FORETUNE_API_KEY", "workers": "none was seen in the last 10 s"}


def test_doctor_looks_at_the_servers_that_are_set(service, run, monkeypatch) -> None:
    # given a service elsewhere, and a database that nobody runs
    monkeypatch.setattr("foretune.client.settings.is_loopback", lambda url: False)
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://me:hush@127.0.0.1:9/none")
    for name in ("REDIS_URL", "ARTIFACTS_URL"):
        monkeypatch.delenv(name, raising=False)
    result = run("doctor", "--json")
    assert result.exit_code == 1
    assert [check["name"] for check in json.loads(result.stdout) if not check["ok"]] == ["DATABASE_URL"]
    assert "hush" not in result.stdout


def test_a_wrong_key_is_exit_code_five(service, run) -> None:
    result = run("--api-key", "wrong", "list")
    assert result.exit_code == 5
    assert "FORETUNE_API_KEY" in result.stderr


def test_nobody_there_is_exit_code_three(run) -> None:
    result = run("--url", "http://127.0.0.1:9", "list")
    assert result.exit_code == 3
    assert "cannot reach http://127.0.0.1:9" in result.stderr
    assert "foretune up" in result.stderr
    assert run("--url", "127.0.0.1:9", "list").exit_code == 2


def test_every_command_has_a_help_text_with_an_example(run) -> None:
    names = [
        line.split()[0] for line in run("--help").stdout.split("Commands:\n")[1].split("\n\n")[0].splitlines() if line
    ]
    own = [name for name in names if name not in ("up", "demo", "keys")]
    assert len(own) >= 16
    for name in [*own, "datasets add"]:
        text = run(*name.split(), "--help")
        assert text.exit_code == 0
        assert f"foretune {name}" in text.stdout, name
        assert "Example" in text.stdout, name
    assert "Exit codes: 0 done" in run("--help").stdout.replace("\n", " ")


def test_commands_of_other_packages_are_found_and_a_missing_part_is_explained(run, monkeypatch) -> None:
    # given an entry point whose module needs what is not installed
    import importlib.metadata

    import typer

    from foretune.cli import plugins

    entry = importlib.metadata.EntryPoint("away", "no_such_package.commands:up", plugins.GROUP)
    greet = importlib.metadata.EntryPoint("doc", "textwrap:dedent", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry, greet])
    outer = typer.Typer()
    plugins.attach(outer)
    from typer.testing import CliRunner

    # when
    result = CliRunner().invoke(outer, ["away", "--port", "1"])
    # then
    assert result.exit_code == 2
    assert "pip install 'foretune[embedded]'" in result.stderr
    assert "no_such_package is missing" in result.stderr
    assert run("up", "--help").exit_code == 0
    assert "--data-dir" in run("up", "--help").stdout
    assert run("up", "-h").stdout == run("up", "--help").stdout


def test_the_console_script_runs_and_interrupts_politely(start) -> None:
    process = start("--version")
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out.strip()
    assert app.info.name == "foretune"


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
