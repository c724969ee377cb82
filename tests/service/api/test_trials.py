"""Ask and tell over HTTP: leases, measurements, endings, and what a report costs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import event

from service.usecases.trials import CheckpointPlace
from tests.service.api.conftest import Api, problem_of

if TYPE_CHECKING:
    import pytest

    from service.artifacts import ArtifactStore


def test_a_trial_from_ask_to_end(api: Api) -> None:
    experiment = api.submit()
    trial = api.ask(experiment)[0]
    assert trial["number"] == 1
    path, lease = f"/v1/trials/{trial['id']}", trial["lease"]["token"]  # type: ignore[index,call-overload]

    measured = {"lease": lease, "measurements": [{"epoch": 1, "value": 0.5, "seconds": 2.0, "metrics": {"acc": 0.8}}]}
    answer = api.http.post(f"{path}/measurements", json=measured)
    assert answer.json()["decision"] == "continue"
    assert answer.json()["lease"]["token"] == lease
    assert api.http.post(f"{path}/measurements", json=measured).status_code == 200, "an epoch may be told twice"
    assert api.http.post(f"{path}/heartbeat", json={"lease": lease}).json()["lease"]["token"] == lease

    done = api.http.post(f"{path}/complete", json={"lease": lease, "value": 0.4}).json()
    assert (done["state"], done["value"]) == ("COMPLETED", 0.4)
    assert api.http.get(path).json() == done
    items = api.http.get(f"{path}/measurements").json()["items"]
    assert [(one["epoch"], one["value"], one["metrics"]) for one in items] == [(1, 0.5, {"acc": 0.8})]
    listed = api.http.get(f"/v1/experiments/{experiment}/trials?state=COMPLETED").json()["items"]
    assert [one["id"] for one in listed] == [trial["id"]]


def test_an_ending_asks_for_the_next_trial_in_the_same_call(api: Api) -> None:
    experiment = api.submit(budget={"max_trials": 2})
    path, lease = api.lease(experiment)
    # when a trial ends and asks for more than there is
    asked = {"count": 3, "wait_seconds": 0}
    done = api.http.post(f"{path}/complete", json={"lease": lease, "value": 0.4, "next": asked}).json()
    # then the ending is what it is without, and the next trials are as asked for by themselves
    following = done.pop("next")["trials"]
    assert api.http.get(path).json() == done
    assert [(one["number"], bool(one["hyperparameters"])) for one in following] == [(2, True)]
    # and when no trial is left, the ending stands, and asking says why there is none
    last, lease = f"/v1/trials/{following[0]['id']}", following[0]["lease"]["token"]
    done = api.http.post(f"{last}/complete", json={"lease": lease, "value": 0.3, "next": asked})
    assert (done.status_code, done.json()["state"], done.json()["next"]) == (200, "COMPLETED", {"trials": []})
    refused = api.http.post(f"/v1/experiments/{experiment}/suggestions", json=asked)
    assert problem_of(refused)["code"] == "budget_exhausted"


def test_an_ending_that_is_refused_leases_nothing(api: Api) -> None:
    experiment = api.submit()
    path, _ = api.lease(experiment)
    asked = {"count": 1, "wait_seconds": 0}
    stale = api.http.post(f"{path}/complete", json={"lease": "1.stale", "value": 0.4, "next": asked})
    assert problem_of(stale)["code"] == "lease_lost"
    wrong = api.http.post(f"{path}/complete", json={"lease": "1.stale", "value": 0.4, "next": {"count": 0}})
    assert problem_of(wrong)["errors"][0]["loc"] == ["body", "next", "count"]  # type: ignore[index,call-overload]
    assert len(api.http.get(f"/v1/experiments/{experiment}/trials").json()["items"]) == 1


def test_a_stale_lease_writes_nothing(api: Api) -> None:
    path, _ = api.lease(api.submit())
    for verb, body in (
        ("measurements", {"measurements": [{"epoch": 1, "value": 1.0}]}),
        ("complete", {"value": 1.0}),
        ("heartbeat", {}),
    ):
        assert problem_of(api.http.post(f"{path}/{verb}", json={"lease": "1.stale", **body}))["code"] == "lease_lost"
    assert api.http.get(path).json()["epochs"] == 0


def test_a_finished_trial_takes_no_more(api: Api) -> None:
    path, lease = api.lease(api.submit())
    api.http.post(f"{path}/complete", json={"lease": lease, "outcome": "infeasible", "reason": "diverged"})
    late = api.http.post(f"{path}/measurements", json={"lease": lease, "measurements": [{"epoch": 1, "value": 1.0}]})
    assert problem_of(late)["code"] == "trial_finished"
    assert "diverged" in str(problem_of(late)["detail"])


def test_two_clients_that_complete_one_trial_agree(api: Api) -> None:
    path, lease = api.lease(api.submit())
    with ThreadPoolExecutor(4) as threads:
        ends = [
            threads.submit(api.http.post, f"{path}/complete", json={"lease": lease, "value": value})
            for value in (0.1, 0.2, 0.1, 0.2)
        ]
    statuses = sorted(end.result().status_code for end in ends)
    assert statuses == [200, 200, 409, 409]


def test_a_spent_budget_is_said_so(api: Api) -> None:
    experiment = api.submit(budget={"max_trials": 2, "max_epochs": 1})
    assert len(api.ask(experiment, 5)) == 2
    answer = api.http.post(f"/v1/experiments/{experiment}/suggestions", json={"wait_seconds": 0})
    assert problem_of(answer)["code"] == "budget_exhausted"


def test_trials_and_measurements_are_paged(api: Api) -> None:
    experiment = api.submit(budget={"max_trials": 3, "max_epochs": 5})
    trials = api.ask(experiment, 3)
    first = api.http.get(f"/v1/experiments/{experiment}/trials?limit=2").json()
    rest = api.http.get(f"/v1/experiments/{experiment}/trials?limit=2&cursor={first['next']}").json()
    assert [one["id"] for one in first["items"] + rest["items"]] == [one["id"] for one in trials]
    assert rest["next"] is None

    path, lease = f"/v1/trials/{trials[0]['id']}", trials[0]["lease"]["token"]  # type: ignore[index,call-overload]
    epochs = [{"epoch": epoch, "value": 1.0} for epoch in range(1, 6)]
    api.http.post(f"{path}/measurements", json={"lease": lease, "measurements": epochs})
    first = api.http.get(f"{path}/measurements?limit=3").json()
    rest = api.http.get(f"{path}/measurements?limit=3&cursor={first['next']}").json()
    assert [one["epoch"] for one in first["items"] + rest["items"]] == [1, 2, 3, 4, 5]


def test_a_checkpoint_is_downloaded_whole(api: Api, artifacts: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = api.lease(api.submit())
    assert problem_of(api.http.get(f"{path}/checkpoint"))["code"] == "no_checkpoint"
    content = bytes(range(256)) * 4000
    artifacts.put_bytes("checkpoints/one", content)
    monkeypatch.setattr("service.usecases.trials.checkpoint", lambda *_: CheckpointPlace("checkpoints/one", 7))
    answer = api.http.get(f"{path}/checkpoint")
    assert answer.content == content
    assert answer.headers["content-disposition"].endswith('-epoch-7.safetensors"')


@contextmanager
def counted(api: Api) -> Iterator[list[str]]:
    """The statements that the API sends meanwhile."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(api.parts.database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(api.parts.database.engine, "before_cursor_execute", note)


def test_what_the_busy_endpoints_ask_of_the_database(api: Api) -> None:
    experiment = api.submit(budget={"max_trials": 10, "max_epochs": 10})
    path, lease = api.lease(experiment)
    calls = {
        "suggestions": (f"/v1/experiments/{experiment}/suggestions", {"wait_seconds": 0}),
        "measurements": (f"{path}/measurements", {"lease": lease, "measurements": [{"epoch": 1, "value": 1.0}]}),
        "heartbeat": (f"{path}/heartbeat", {"lease": lease}),
        "complete": (f"{path}/complete", {"lease": lease, "value": 1.0}),
    }
    costs = {}
    for name, (where, body) in calls.items():
        api.http.get("/v1/keys")  # the key is looked up here, if it must be
        with counted(api) as statements:
            assert api.http.post(where, json=body).status_code == 200
        costs[name] = len(statements)
    assert costs["suggestions"] <= 3, costs
    assert costs["measurements"] <= 4, costs
    assert costs["heartbeat"] <= 3, costs
    assert costs["complete"] <= 4, costs
