"""Every other command against a service: what people read, what scripts get, and the exit codes."""

from __future__ import annotations

import json

import pytest

from foretune.cli.main import app


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
