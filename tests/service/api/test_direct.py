"""The short way to the hot endpoints: the same answers as FastAPI's own way, which takes whatever is not plain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.app import Application, hot_routes
from service.api.direct import Direct
from tests.service.api.conftest import Api

if TYPE_CHECKING:
    import httpx

PLAIN = {"content-type": "application/json"}
OTHERWISE = {"content-type": "application/json; charset=utf-8"}
"""Means the same, and is not what the short way looks for."""


@dataclass
class Counted:
    """FastAPI's own way, and how often it was taken."""

    app: ASGIApp
    calls: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await self.app(scope, receive, send)


@pytest.fixture
def whole(api: Api, monkeypatch: pytest.MonkeyPatch) -> Counted:
    assert isinstance(api.app, Application)
    counted = Counted(api.app.whole)
    monkeypatch.setattr(api.app, "direct", Direct(counted, hot_routes()))
    return counted


def seen(answer: httpx.Response) -> tuple[object, ...]:
    """What is the same of two equal answers on two trials."""
    told = answer.json()
    for name in ("id", "number", "hyperparameters", "created_at", "started_at", "finished_at", "lease"):
        told.pop(name, None)
    names = sorted(name for name in answer.headers if name not in ("date", "x-request-id", "content-length"))
    return answer.status_code, answer.headers["content-type"], names, told


class TestThePlainCall:
    def test_goes_past_fastapi(self, api: Api, whole: Counted) -> None:
        experiment = api.submit()
        whole.calls = 0
        trial = api.ask(experiment)[0]
        lease = trial["lease"]["token"]  # type: ignore[index,call-overload]
        path = f"/v1/trials/{trial['id']}"
        measured = {"lease": lease, "measurements": [{"epoch": 1, "value": 0.5}]}
        assert api.http.post(f"{path}/measurements", json=measured).json()["decision"] == "continue"
        assert api.http.post(f"{path}/heartbeat", json={"lease": lease}).status_code == 200
        assert api.http.post(f"{path}/complete", json={"lease": lease, "value": 0.4}).json()["state"] == "COMPLETED"
        assert whole.calls == 0

    def test_is_counted_by_its_route(self, api: Api) -> None:
        def counted() -> float:
            lines = api.http.get("/metrics").text.splitlines()
            sought = 'route="/v1/trials/{trial_id}/heartbeat"'
            return sum(float(line.split()[-1]) for line in lines if "_count{" in line and sought in line)

        path, lease = api.lease(api.submit())
        before = counted()
        api.http.post(f"{path}/heartbeat", json={"lease": lease})
        assert counted() == before + 1

    def test_heeds_an_idempotency_key_where_fastapi_does(self, api: Api, whole: Counted) -> None:
        experiment = api.submit()
        keyed = {"idempotency-key": "once"}
        body = {"count": 1, "wait_seconds": 0}
        url = f"/v1/experiments/{experiment}/suggestions"
        first, again = (api.http.post(url, json=body, headers=keyed).json() for _ in range(2))
        assert first == again
        path, lease = f"/v1/trials/{first['trials'][0]['id']}", first["trials"][0]["lease"]["token"]
        for value in (1, 2):
            told = {"lease": lease, "measurements": [{"epoch": value, "value": value}]}
            answer = api.http.post(f"{path}/measurements", json=told, headers=keyed)
            assert answer.status_code == 200, "this call takes no key, so another body is no conflict"


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("complete", b'{"lease": "LEASE", "value": 0.5}'),
        ("complete", b'{"lease": "1.stale", "value": 0.5}'),
        ("complete", b'{"lease": "LEASE", "value": NaN}'),
        ("complete", b'{"lease": "LEASE", "value": 1, "more": 2}'),
        ("complete", b'{"lease": "LEASE", "value": 1, "outcome": "failed"}'),
        ("complete", b'["LEASE"]'),
        ("complete", b"{"),
        ("complete", b""),
        ("complete", b'"\xff"'),
        ("complete", b"[" * 2000),
        ("complete", b'{"lease": "LEASE", "reason": "' + b"x" * 70_000 + b'"}'),
        ("heartbeat", b'{"lease": "LEASE"}'),
        ("heartbeat", b'{"lease": null}'),
        ("measurements", b'{"lease": "LEASE", "measurements": [{"epoch": 1, "value": 0.5}]}'),
        ("measurements", b'{"lease": "LEASE", "measurements": [{"epoch": 99, "value": 0.5}]}'),
        ("measurements", b'{"lease": "LEASE", "measurements": []}'),
        ("nothing", b'{"lease": "LEASE"}'),
    ],
)
def test_both_ways_say_the_same(api: Api, verb: str, body: bytes) -> None:
    experiment = api.submit()
    told = []
    for headers in (PLAIN, OTHERWISE):
        path, lease = api.lease(experiment)
        answer = api.http.post(f"{path}/{verb}", content=body.replace(b"LEASE", lease.encode()), headers=headers)
        told.append(str(seen(answer)).replace(path, "PATH"))
    assert told[0] == told[1]


@pytest.mark.parametrize("path", ["/v1/trials/tri_none/complete", "/v1/trials/%00/complete", "/v1/trials//complete"])
@pytest.mark.parametrize("key", [None, "ft_wrong", "right"])
def test_both_ways_refuse_alike(api: Api, path: str, key: str | None) -> None:
    client = api.http if key == "right" else api.as_key(key)
    body = b'{"lease": "x", "value": 1}'
    plain, otherwise = (client.post(path, content=body, headers=headers) for headers in (PLAIN, OTHERWISE))
    assert plain.status_code >= 400
    assert seen(plain) == seen(otherwise)


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?more=1", {}),
        ("", {"idempotency-key": "k" * 300}),
        ("", {"idempotency-key": ""}),
        ("", {"content-type": "text/csv"}),
    ],
)
def test_what_is_not_plain_is_refused_by_fastapi(api: Api, whole: Counted, query: str, headers: dict[str, str]) -> None:
    experiment = api.submit()
    whole.calls = 0
    url = f"/v1/experiments/{experiment}/suggestions{query}"
    answer = api.http.post(url, content=b'{"count": 1, "wait_seconds": 0}', headers={**PLAIN, **headers})
    assert answer.status_code in (415, 422)
    assert whole.calls == 1


def test_a_body_in_pieces_is_read_whole(api: Api) -> None:
    """Given the length is announced and the body arrives byte by byte."""
    path, lease = api.lease(api.submit())
    body = f'{{"lease": "{lease}", "value": 0.5}}'.encode()
    pieces = (bytes([byte]) for byte in body)
    answer = api.http.post(f"{path}/complete", content=pieces, headers={**PLAIN, "content-length": str(len(body))})
    assert answer.json()["state"] == "COMPLETED"
