"""The event stream: every event once, in order, while it happens."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import httpx

from foretune.client.sse import Message, Parser
from tests.service.api.conftest import Api, Serve, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable


@contextmanager
def stream(api: Api, experiment: str, after: int | None = None, query: str = "") -> Iterator[Iterator[Message]]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with api.http.stream("GET", f"/v1/experiments/{experiment}/events{query}", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        with closing(_messages(answer)) as messages:
            yield messages


def _messages(answer: httpx.Response) -> Generator[Message, None, None]:
    parser = Parser()
    for chunk in answer.iter_bytes():
        yield from parser.feed(chunk)


def finish(api: Api, experiment: str) -> None:
    assert api.http.post(f"/v1/experiments/{experiment}/cancel").status_code == 200


def sequences(messages: Iterator[Message]) -> list[int]:
    return [int(message.last_id) for message in messages]


def test_a_finished_experiment_is_told_whole_and_the_stream_ends(api: Api) -> None:
    experiment = api.submit()
    path, lease = api.lease(experiment)
    api.http.post(f"{path}/measurements", json={"lease": lease, "measurements": [{"epoch": 1, "value": 0.5}]})
    finish(api, experiment)
    with stream(api, experiment) as messages:
        told = list(messages)
    last = api.http.get(f"/v1/experiments/{experiment}").json()["last_event"]
    assert [int(message.last_id) for message in told] == list(range(1, last + 1))
    assert told[0].event == "experiment.state"
    assert {"trial.created", "trial.measurement", "experiment.best", "trial.state"} <= {one.event for one in told}
    assert '"state":"CANCELED"' in told[-1].data


def test_a_stream_resumes_after_the_event_that_was_seen_last(api: Api) -> None:
    experiment = api.submit()
    finish(api, experiment)
    for after, query, expected in (
        (1, "", [2]),
        (None, "?after=1", [2]),
        (1, "?after=0", [2]),
        (2, "", []),
        (10**12, "", []),
    ):
        with stream(api, experiment, after, query) as messages:
            assert sequences(messages) == expected


def test_news_arrives_while_it_happens(api: Api) -> None:
    experiment = api.submit()
    with stream(api, experiment) as messages:
        assert next(messages).last_id == "1"
        path, lease = api.lease(experiment)
        assert [next(messages).event, next(messages).event] == ["experiment.state", "trial.created"]
        api.http.post(f"{path}/measurements", json={"lease": lease, "measurements": [{"epoch": 1, "value": 0.5}]})
        assert {next(messages).event, next(messages).event} == {"trial.measurement", "experiment.best"}
        finish(api, experiment)
        assert '"state":"CANCELED"' in list(messages)[-1].data


def test_without_redis_news_arrives_all_the_same(serve: Serve, api: Api) -> None:
    deaf = serve(redis_url="redis://127.0.0.1:1/0")
    experiment = api.submit()
    with stream(deaf, experiment) as messages:
        assert next(messages).last_id == "1"
        finish(api, experiment)
        assert sequences(messages) == [2]


def test_more_events_than_one_read_takes(api: Api) -> None:
    experiment = api.submit(budget={"max_trials": 1, "max_epochs": 1500})
    path, lease = api.lease(experiment)
    for start in (1, 751):
        epochs = [{"epoch": epoch, "value": 1.0} for epoch in range(start, start + 750)]
        assert api.http.post(f"{path}/measurements", json={"lease": lease, "measurements": epochs}).status_code == 200
    finish(api, experiment)
    last = api.http.get(f"/v1/experiments/{experiment}").json()["last_event"]
    assert last > 1500
    with stream(api, experiment) as messages:
        assert sequences(messages) == list(range(1, last + 1))


def test_an_unknown_experiment_has_no_stream(api: Api) -> None:
    assert problem_of(api.http.get("/v1/experiments/exp_none/events"))["status"] == 404
    for wrong in ("x", "-1", "1.5", "9" * 30):
        answer = api.http.get("/v1/experiments/exp_none/events", headers={"Last-Event-ID": wrong})
        assert problem_of(answer)["errors"][0]["loc"] == ["header", "last-event-id"]  # type: ignore[index]


def test_a_stream_has_a_longest_life(serve: Serve) -> None:
    api = serve(foretune_stream_max_s=0.2)
    with stream(api, api.submit()) as messages:
        assert sequences(messages) == [1]


def test_a_stream_of_a_deleted_experiment_ends(api: Api) -> None:
    experiment = api.submit()
    finish(api, experiment)
    assert api.http.delete(f"/v1/experiments/{experiment}").status_code == 204
    assert api.http.get(f"/v1/experiments/{experiment}/events").status_code == 404


def test_stopping_the_service_ends_streams_in_good_order(serve: Serve, eventually: Callable[..., None]) -> None:
    api = serve()
    told: list[int] = []

    def listen() -> None:
        with stream(api, experiment) as messages:
            told.extend(sequences(messages))
        told.append(0)

    experiment = api.submit()
    listener = threading.Thread(target=listen)
    listener.start()
    metrics = api.as_key(None)
    eventually(lambda: "foretune_streams 1.0" in metrics.get("/metrics").text)
    api.stop()
    listener.join(20)
    assert told == [1, 0]
