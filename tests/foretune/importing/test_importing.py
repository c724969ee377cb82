"""Other tools' files as histories: each is one that the service would take, and what is wrong is said where."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from foretune.errors import InvalidHistory
from foretune.importing import exports, optuna, tables
from foretune.importing.runs import Found, Heading, Run, guess, history
from foretune.importing.tables import Dialect
from foretune.metrics import Goal
from foretune.parameters import Bool, Categorical, Float, Int
from foretune.states import TrialState
from foretune.wire.histories import HistoryLine

LOSS = Heading("runs", "val_loss", Goal.MINIMIZE, {"rows": 100.0})


def taken(found: Found) -> HistoryLine:
    """As the service reads it, every setting a point of the space."""
    line = HistoryLine.model_validate_json(json.dumps(found.line))
    from foretune.spaces import Space

    space = Space(tuple(line.space))
    for trial in line.trials:
        space.check(trial.hyperparameters)
    return line


class TestGuessing:
    @pytest.mark.parametrize(
        ("values", "parameter"),
        [
            ([1e-4, 1e-1, 1e-2], Float("x", 1e-4, 1e-1, log=True)),
            ([0.1, 0.5], Float("x", 0.1, 0.5)),
            ([16, 512, 4096], Int("x", 16, 4096, log=True)),
            ([1, 2, 3.5], Float("x", 1.0, 3.5)),
            ([-3, 4], Int("x", -3, 4)),
            (["sgd", "adam", "sgd"], Categorical("x", ["adam", "sgd"])),
            ([True, False], Bool("x")),
            ([3, 3, 3], None),
            ([3, "three"], None),
            ([True, 1], None),
        ],
    )
    def test_type_and_range_from_values(self, values, parameter) -> None:
        assert guess("x", values) == parameter

    def test_what_only_some_runs_have_depends_on_a_choice(self) -> None:
        runs = [
            Run({"optimizer": "sgd", "momentum": 0.9, "lr": 0.1}, 1.0),
            Run({"optimizer": "adam", "lr": 0.01}, 2.0),
            Run({"optimizer": "sgd", "momentum": 0.5, "lr": 0.2}, 3.0),
        ]
        line = taken(history(LOSS, runs))
        momentum = next(one for one in line.space if one.name == "momentum")
        assert momentum.when == {"optimizer": ["sgd"]}

    def test_what_nothing_explains_is_left_out_and_said(self) -> None:
        found = history(LOSS, [Run({"lr": 0.1, "x": 1.0}, 1.0), Run({"lr": 0.2}, 2.0), Run({"lr": 0.2, "x": 2.0}, 2.0)])
        assert [one.name for one in taken(found).space] == ["lr"]
        assert any("x is left out" in note for note in found.notes)

    def test_failed_runs_say_nothing_and_diverged_ones_do(self) -> None:
        runs = [
            Run({"lr": 0.1}, 1.0),
            Run({"lr": 0.2}, None, state=TrialState.INFEASIBLE),
            Run({"lr": 0.3}, None, state=TrialState.FAILED),
        ]
        found = history(LOSS, runs)
        assert [trial.state for trial in taken(found).trials] == ["COMPLETED", "INFEASIBLE"]
        assert "1 runs that failed, never ended or have no value are left out" in found.notes

    def test_nothing_to_learn_from(self) -> None:
        with pytest.raises(InvalidHistory, match="none of its 1 runs has a value of val_loss"):
            history(LOSS, [Run({"lr": 0.1}, None)])
        with pytest.raises(InvalidHistory, match="no hyperparameter differs"):
            history(LOSS, [Run({"lr": 0.1}, 1.0), Run({"lr": 0.1}, 2.0)])


class TestTables:
    def write(self, folder: Path, text: str) -> Path:
        path = folder / "runs.csv"
        path.write_text(text)
        return path

    def test_columns_that_are_named(self, tmp_path: Path) -> None:
        path = self.write(
            tmp_path,
            "id,lr,hidden,opt,val_loss\na,0.1,32,sgd,0.5\nb,0.001,64,adam,nan\nc,0.01,64,adam,0.3\nd,1,8,sgd,\n",
        )
        line = taken(tables.read(path, Dialect.PLAIN, LOSS, {"lr": "learning_rate", "hidden": "width"}))
        assert {one.name for one in line.space} == {"learning_rate", "width"}
        assert [trial.value for trial in line.trials] == [0.5, None, 0.3]
        assert [trial.state for trial in line.trials] == ["COMPLETED", "INFEASIBLE", "COMPLETED"]
        assert line.features == {"rows": 100.0}

    def test_mlflow(self, tmp_path: Path) -> None:
        path = self.write(
            tmp_path,
            "run_id,status,params.lr,params.net,metrics.val_loss,tags.x\n"
            "1,FINISHED,0.1,a,0.5,z\n2,FAILED,0.2,b,0.1,z\n3,FINISHED,0.3,b,0.4,z\n",
        )
        line = taken(tables.read(path, Dialect.MLFLOW, LOSS, {}))
        assert {one.name for one in line.space} == {"lr", "net"}
        assert [trial.value for trial in line.trials] == [0.5, 0.4]

    def test_wandb(self, tmp_path: Path) -> None:
        path = self.write(
            tmp_path,
            '"Name","State","Runtime","lr","val_loss","_step"\n"a","finished","12","0.1","0.5","3"\n'
            '"b","crashed","1","0.2","",""\n"c","finished","9","0.3","NaN","3"\n',
        )
        line = taken(tables.read(path, Dialect.WANDB, LOSS, {}))
        assert {one.name for one in line.space} == {"lr"}
        assert [trial.state for trial in line.trials] == ["COMPLETED", "INFEASIBLE"]

    @pytest.mark.parametrize(
        ("text", "columns", "words"),
        [
            ("", {}, "the file is empty"),
            ("lr,val_loss\n0.1,1\n0.2\n", {}, r"runs.csv:3: 1 cells, but 2 columns"),
            ("lr,loss\n0.1,1\n", {}, r"no column 'val_loss'; there are lr, loss"),
            ("lr,val_loss\n0.1,1\n", {"width": "w"}, "no column 'width'"),
            ("lr,val_loss\n0.1,1\n0.2,good\n", {}, r"runs.csv:3: column 'val_loss' holds 'good'"),
        ],
    )
    def test_what_is_wrong_is_said_where(self, tmp_path: Path, text: str, columns: dict[str, str], words: str) -> None:
        with pytest.raises(InvalidHistory, match=words):
            tables.read(self.write(tmp_path, text), Dialect.PLAIN, LOSS, columns)


class TestExports:
    def test_wandb(self, tmp_path: Path) -> None:
        path = tmp_path / "runs.json"
        runs = [
            {
                "name": "a",
                "state": "finished",
                "config": {"lr": {"value": 0.1}, "_wandb": {"value": {}}, "layers": {"value": [1, 2]}},
                "summary": json.dumps({"val_loss": 0.5}),
                "history": [{"val_loss": 0.9}, {"val_loss": "NaN"}, {"val_loss": 0.5}],
            },
            {"name": "b", "state": "crashed", "config": {"lr": 0.2}, "summary": {}},
            {"name": "c", "state": "finished", "config": {"lr": 0.3}, "summary": {"val_loss": 0.7}},
        ]
        path.write_text(json.dumps(runs))
        line = taken(exports.read_wandb(path, LOSS, {}))
        assert [trial.hyperparameters for trial in line.trials] == [{"lr": 0.1}, {"lr": 0.3}]
        assert line.trials[0].curve == [0.9, None, 0.5]
        assert line.max_epochs == 3

    def test_mlflow(self, tmp_path: Path) -> None:
        path = tmp_path / "runs.json"
        runs = [
            {
                "info": {"status": status},
                "data": {"params": [{"key": "lr", "value": lr}], "metrics": [{"key": "val_loss", "value": loss}]},
            }
            for status, lr, loss in (("FINISHED", "0.1", 0.5), ("FINISHED", "0.2", 0.4), ("RUNNING", "0.3", 0.9))
        ]
        path.write_text(json.dumps({"runs": runs}))
        line = taken(exports.read_mlflow(path, LOSS, {"lr": "learning_rate"}))
        assert [trial.hyperparameters for trial in line.trials] == [{"learning_rate": 0.1}, {"learning_rate": 0.2}]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", r"runs.json:1:2: no JSON"),
            ("3", "a list of runs is expected"),
            ('[{"config": 3}]', "run 0: config must be an object"),
            ('[{"config": "{"}]', "run 0: config is no JSON"),
        ],
    )
    def test_what_is_wrong_is_said_where(self, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "runs.json"
        path.write_text(text)
        with pytest.raises(InvalidHistory, match=words):
            exports.read_wandb(path, LOSS, {})


class TestOptuna:
    @pytest.fixture(params=["sqlite", "journal"])
    def storage(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        """A real storage with a conditional study: pruned, failed and running trials, too."""
        import optuna as real

        real.logging.set_verbosity(real.logging.ERROR)
        address = f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(tmp_path / "journal.log")
        backend: object = address
        if request.param == "journal":
            from optuna.storages.journal import JournalFileBackend

            backend = real.storages.JournalStorage(JournalFileBackend(address))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = real.create_study(
                storage=backend, study_name="mine", direction="maximize", sampler=real.samplers.RandomSampler(seed=0)
            )
            study.optimize(self.objective, n_trials=20, catch=(RuntimeError,))
        study.ask()
        return address

    @staticmethod
    def objective(trial) -> float:
        import optuna as real

        rate = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
            trial.suggest_float("momentum", 0.0, 0.99)
        trial.suggest_int("layers", 1, 5, step=2)
        trial.suggest_int("constant", 3, 3)
        if trial.number == 4:
            raise RuntimeError
        for step in range(3):
            trial.report(rate * step, step)
            if trial.number % 7 == 5:
                raise real.TrialPruned
        return rate * 2

    def test_a_study_is_a_history(self, storage: str) -> None:
        (found,) = optuna.read(storage, None, "val_accuracy", {"rows": 10.0})
        line = taken(found)
        assert line.name == "mine"
        assert line.max_epochs == 3
        by_name = {one.name: one for one in line.space}
        assert by_name["lr"] == Float("lr", 1e-5, 1e-1, log=True)
        assert by_name["layers"] == Int("layers", 1, 5, step=2)
        assert by_name["momentum"].when == {"optimizer": ["sgd"]}
        assert line.fixed == {"constant": 3}
        states = [trial.state.value for trial in line.trials]
        assert (states.count("COMPLETED"), states.count("STOPPED")) == (16, 3)
        assert found.notes == ("2 runs that failed, never ended or have no value are left out",)

    def test_a_study_that_is_not_there(self, storage: str) -> None:
        with pytest.raises(InvalidHistory, match="has no study 'yours'; there are mine"):
            list(optuna.read(storage, "yours", None, {}))

    def test_no_storage(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidHistory, match="no such journal file"):
            list(optuna.read(str(tmp_path / "none.log"), None, None, {}))
        with pytest.raises(InvalidHistory, match="no such file"):
            list(optuna.read(f"sqlite:///{tmp_path}/none.db", None, None, {}))
        assert not (tmp_path / "none.db").exists()

    def test_several_objectives(self, tmp_path: Path) -> None:
        import optuna as real

        real.create_study(storage=f"sqlite:///{tmp_path}/s.db", study_name="two", directions=["minimize", "maximize"])
        with pytest.raises(InvalidHistory, match="has 2 objectives"):
            list(optuna.read(f"sqlite:///{tmp_path}/s.db", None, None, {}))
