"""A service over real sockets that misbehaves on purpose."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from foretune.client import Client, RetryPolicy
from tests.foretune.client.study import Study


@dataclass(frozen=True)
class Answer:
    """A whole answer. `cut` sends only that many bytes of the body, then closes the connection."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    raw: bytes | None = None


@dataclass(frozen=True)
class Drop:
    """Closes the connection without a word."""


@dataclass(frozen=True)
class Sse:
    """A stream of these pieces; `cut` ends it in the middle, as a killed process does, instead of in good order."""

    pieces: Sequence[bytes]
    cut: bool = False


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


Step = Answer | Drop | Sse
Script = Step | Callable[[Received], Step]


class ScriptedService:
    """Each route answers with the steps of its script in turn; the last one is repeated."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.received: list[Received] = []
        self._scripts: dict[tuple[str, str], list[Script]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._sockets: set[socket.socket] = set()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def on(self, method: str, path: str, *steps: Script) -> None:
        self._scripts[method, path] = list(steps)

    def sent(self, method: str, path: str) -> list[Received]:
        return [one for one in self.received if (one.method, one.path.partition("?")[0]) == (method, path)]

    def answer(self, body: object = None, status: int = 200, **more: object) -> Answer:
        return Answer(status, body, **more)  # type: ignore[arg-type]

    def problem(self, status: int, code: str, detail: str = "why", headers: Mapping[str, str] | None = None) -> Answer:
        body = {"type": "about:blank", "title": "t", "status": status, "detail": detail, "code": code}
        return Answer(status, body, headers or {})

    def drop(self) -> Drop:
        return Drop()

    def sse(self, *pieces: bytes, cut: bool = False) -> Sse:
        return Sse(pieces, cut)

    def start(self) -> None:
        service = self

        class Handler(_Handler):
            owner = service

        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """As a killed process: the port refuses, open connections break."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._server = None

    def next_step(self, request: Received) -> Step:
        with self._lock:
            self.received.append(request)
            script = self._scripts.get((request.method, request.path.partition("?")[0]))
            if not script:
                return self.problem(404, "not_found", f"nothing at {request.method} {request.path}")
            step = script.pop(0) if len(script) > 1 else script[0]
        return step(request) if callable(step) else step

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)


class _Handler(BaseHTTPRequestHandler):
    owner: ScriptedService
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.owner.opened(self.connection)

    def finish(self) -> None:
        self.owner.closed(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        step = self.owner.next_step(Received(self.command, self.path, headers, self.rfile.read(length)))
        match step:
            case Drop():
                self.close_connection = True
            case Answer():
                body = (
                    step.raw if step.raw is not None else b"" if step.body is None else json.dumps(step.body).encode()
                )
                self.send_response(step.status)
                for name, value in step.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if step.cut is None else body[: step.cut])
                if step.cut is not None:
                    self.close_connection = True
            case Sse():
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for piece in step.pieces:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                if step.cut:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    scripted = ScriptedService()
    yield scripted
    scripted.stop()


@pytest.fixture
def client(service: ScriptedService) -> Iterator[Client]:
    retry = RetryPolicy(first_wait_s=0.01, longest_wait_s=0.05, give_up_after_s=5.0, give_up_unseen_s=0.3)
    with Client(service.url, "key-1", timeout_s=5.0, retry=retry) as made:
        yield made


@pytest.fixture
def secure_service(tmp_path: Path) -> Iterator[tuple[ScriptedService, Path]]:
    """A service over TLS, and the certificate to trust it by."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-keyout", key, "-out", certificate, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    scripted = ScriptedService(context)
    yield scripted, certificate
    scripted.stop()


@pytest.fixture
def study(service) -> Study:
    return Study(service)


@pytest.fixture
def experiment(client, study):
    return client.experiments.get("exp_1")
