"""A small service over real sockets, and the command line in this process and in processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from foretune.cli.main import app

SCHEDULE = {
    "peak": 0.1, "warmup_fraction": 0.1, "plateau_fraction": 0.3, "decay_exponent": 1.0, "final_fraction": 0.0,
    "values": [0.05, 0.1, 0.1, 0.05, 0.0],
}  # fmt: skip
NETWORK = {
    "name": "mlp", "description": "a multi-layer perceptron", "tasks": ["classification"], "views": ["tabular"],
    "limits": [],
    "space": [
        {"name": "learning_rate", "type": "float", "low": 1e-5, "high": 1.0, "log": True},
        {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adamw"]},
        {"name": "momentum", "type": "float", "low": 0, "high": 0.99, "when": {"optimizer": ["sgd"]}},
        {"name": "lr_schedule", "type": "schedule"},
    ],
    "defaults": {"learning_rate": 0.001, "optimizer": "adamw"},
}  # fmt: skip
DATASET = {
    "id": "dst_1", "name": "digits", "task": "classification", "modality": "image", "views": ["image"], "rows": 1797,
    "features": 64, "classes": 10, "sha256": "0", "size_bytes": 1, "builtin": True,
    "created_at": "2026-01-01T00:00:00Z",
}  # fmt: skip


def experiment(number: int, **changes: object) -> dict[str, object]:
    return {
        "id": f"exp_0000000000000000000{number:03d}", "name": f"job-{number}", "state": "QUEUED", "mode": "managed",
        "created_at": "2026-01-01T00:00:00Z", "dataset": "digits", "network": "mlp",
        "metric": {"name": "val_accuracy", "goal": "maximize"}, "space": NETWORK["space"], "fixed": {},
        "budget": {"max_trials": 2, "max_epochs": 3}, "stopping": "auto", "proposer": "auto", "priors": "auto",
        "parallelism": 8, "seed": 0, "share_history": True, "labels": {}, "features": {}, "last_event": 0,
        "progress": {"trials": {}, "epochs": 0, "seconds": 0, "fraction": 0}, **changes,
    }  # fmt: skip


BEST = {
    "trial": "tri_2", "number": 2, "value": 0.9712, "epoch": 3,
    "hyperparameters": {"learning_rate": 0.0123456, "optimizer": "adamw"}, "lr_schedule": SCHEDULE,
}  # fmt: skip


def events() -> list[tuple[str, dict[str, object]]]:
    """The whole life of an experiment with two trials of three epochs."""
    log: list[tuple[str, dict[str, object]]] = [("experiment.state", {"state": "RUNNING", "reason": None})]
    for number, values in ((1, [0.5, 0.7, 0.8]), (2, [0.6, 0.9, 0.9712])):
        trial = {"trial": f"tri_{number}", "number": number}
        hyperparameters = {"learning_rate": 0.01 * number, "optimizer": "adamw"}
        log.append(("trial.created", {**trial, "hyperparameters": hyperparameters, "origin": "gp"}))
        best = 0.0 if number == 1 else 0.8
        for epoch, value in enumerate(values, start=1):
            log.append(("trial.measurement", {**trial, "epoch": epoch, "value": value, "seconds": 1.0, "metrics": {}}))
            if value > best:
                log.append(("experiment.best", {**trial, "value": value, "epoch": epoch}))
        log.append(("trial.state", {**trial, "state": "COMPLETED", "reason": None, "value": values[-1]}))
    log.append(("experiment.state", {"state": "COMPLETED", "reason": "all 2 trials are done"}))
    return log


class SmallService:
    """Keeps experiments and datasets in memory; `hold` stops the event stream after so many events."""

    def __init__(self) -> None:
        self.experiments: dict[str, dict[str, object]] = {}
        self.datasets = [DATASET]
        self.requests: list[tuple[str, str, bytes]] = []
        self.override: dict[tuple[str, str], tuple[int, object]] = {}
        self.parts = {"database": "ok", "broker": "ok", "workers": "ok"}
        self.key = "key-1"
        self.hold = -1
        service = self

        class Handler(_Handler):
            owner = service

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, **changes: object) -> dict[str, object]:
        made = experiment(len(self.experiments) + 1, **changes)
        self.experiments[str(made["id"])] = made
        return made

    def finish(self, identity: str, **changes: object) -> None:
        progress = {"trials": {"COMPLETED": 2}, "epochs": 6, "seconds": 65.0, "fraction": 1.0}
        self.experiments[identity] |= {
            "state": "COMPLETED", "reason": "all 2 trials are done", "best": BEST, "progress": progress,
            "last_event": len(events()), **changes,
        }  # fmt: skip

    def sent(self, method: str, path: str) -> list[bytes]:
        return [body for how, where, body in self.requests if (how, where.partition("?")[0]) == (method, path)]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        match method, *path.strip("/").split("/"):
            case "GET", "healthz":
                return 200, {"status": "ok", "version": "0.1.0"}
            case "GET", "readyz":
                ready = all(part == "ok" for part in self.parts.values())
                return (200 if ready else 503), {"ready": ready, "parts": self.parts}
            case "GET", "v1", "experiments":
                newest_first = list(self.experiments.values())[::-1]
                return 200, {"items": newest_first, "next": None}
            case "POST", "v1", "experiments":
                request = json.loads(body)
                return 201, self.add(
                    **{k: v for k, v in request.items() if k in ("name", "mode", "dataset", "network")}
                )
            case "GET", "v1", "networks":
                return 200, {"items": [NETWORK], "next": None}
            case "GET", "v1", "datasets":
                return 200, {"items": self.datasets, "next": None}
            case "POST", "v1", "datasets":
                made = {**DATASET, "id": "dst_2", "name": "churn", "builtin": False, "warnings": ["column id left out"]}
                return 201, made
            case "POST", "v1", "recommendations":
                return 200, self.recommendations()
            case "POST", "v1", "histories":
                wrong = [
                    {"line": line, "code": "invalid_history", "detail": "no trials"}
                    for line, text in enumerate(body.splitlines(), start=1)
                    if text == b"{}"
                ]
                return 200, {"imported": len(body.splitlines()) - len(wrong), "duplicates": 0, "errors": wrong}
            case _, "v1", "experiments", identity, *rest if identity in self.experiments:
                return self.about(method, identity, rest)
        return 404, {"type": "t", "title": "t", "status": 404, "detail": f"there is no {path}", "code": "not_found"}

    def about(self, method: str, identity: str, rest: list[str]) -> tuple[int, object]:
        one = self.experiments[identity]
        match method, rest:
            case "GET", []:
                return 200, one
            case "DELETE", []:
                del self.experiments[identity]
                return 204, None
            case "POST", [("pause" | "resume" | "cancel") as verb]:
                one["state"] = {"pause": "PAUSED", "resume": "RUNNING", "cancel": "CANCELED"}[verb]
                return 200, one
            case "GET", ["recommendation"]:
                return 200, self.recommendations()
            case "GET", ["export"]:
                return 200, "trial,epoch,value\n1,1,0.5\n"
            case "GET", ["trials"]:
                trials = [
                    {"id": f"tri_{n}", "experiment": identity, "number": n, "state": state, "hyperparameters": {"x": n},
                     "origin": "gp", "attempts": 1, "epochs": 3, "value": value, "best_value": value, "seconds": 1.0,
                     "created_at": "2026-01-01T00:00:00Z", "reason": reason}
                    for n, state, value, reason in (
                        (1, "COMPLETED", 0.8, None), (2, "COMPLETED", 0.97, None), (3, "FAILED", None, "out of memory"))
                ]  # fmt: skip
                return 200, {"items": trials, "next": None}
        return 404, {"type": "t", "title": "t", "status": 404, "detail": "no", "code": "not_found"}

    def recommendations(self) -> dict[str, object]:
        one = {
            "rank": 1, "hyperparameters": {"learning_rate": 0.02, "optimizer": "adamw"}, "lr_schedule": SCHEDULE,
            "predicted": {"metric": "val_accuracy", "median": 0.97, "low": 0.94, "high": 0.985}, "origin": "portfolio",
            "evidence": [{"experiment": "exp_9", "similarity": 0.83, "best": 0.98}],
        }  # fmt: skip
        model = {"version": 12, "experiments": 153, "trials": 9800}
        return {"id": "rec_1", "recommendations": [one], "confidence": "high", "model": model}


class _Handler(BaseHTTPRequestHandler):
    owner: SmallService
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        service, path = self.owner, self.path.partition("?")[0]
        service.requests.append((self.command, self.path, body))
        if path.startswith("/v1") and self.headers.get("authorization") != f"Bearer {service.key}":
            status, answer = (
                401,
                {"type": "t", "title": "t", "status": 401, "detail": "no key", "code": "unauthenticated"},
            )
        elif (self.command, path) in service.override:
            status, answer = service.override[self.command, path]
        elif path.endswith("/events"):
            self._stream(path.split("/")[3])
            return
        else:
            status, answer = service.answer(self.command, path, body)
        content = answer.encode() if isinstance(answer, str) else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, identity: str) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for sequence, (kind, data) in enumerate(events(), start=1):
            while 0 <= self.owner.hold < sequence:
                time.sleep(0.01)
                self.connection.getpeername()
            if sequence == len(events()):
                self.owner.finish(identity)
            if sequence > int(self.headers.get("last-event-id") or 0):
                piece = f"id: {sequence}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallService]:
    small = SmallService()
    monkeypatch.setenv("FORETUNE_URL", small.url)
    monkeypatch.setenv("FORETUNE_API_KEY", small.key)
    yield small
    small.server.shutdown()
    small.server.server_close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """`run("status", "last")`: the command line in this process."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments, **more: CliRunner().invoke(app, [str(one) for one in arguments], **more)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`start("watch", "last")`: the command line in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: object, **more: object) -> subprocess.Popen[bytes]:
        # Ctrl-C reaches it as in a terminal, also where the tests themselves run in a background that ignores it.
        script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        script += "from foretune.cli.main import main; main()"
        command = [sys.executable, "-c", script, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        started.append(subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()
