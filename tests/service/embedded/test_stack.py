"""The whole start and stop, with real servers and a small real HTTP server in the API's place.

`python -m http.server` stands where the API will: it is gated like the API, and a file named readyz makes it ready.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from service.embedded import gate, ports
from service.embedded.children import StackPlan, default_train_workers, visible_gpus
from service.embedded.faults import StackError, StackFault
from service.embedded.layout import Layout
from service.embedded.processes import is_alive, read_pid_file
from service.embedded.spawning import ChildSpec
from service.embedded.stack import StackOptions, start

CLEANED = re.compile(r"(?:removed stale|stopped) (\w+)(?:\.pid)? \(pid \d+")

# Runs a stack in argv[1] until it is killed.
KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_stack import options_for
from service.embedded.stack import start
with start(options_for(Path(sys.argv[1]))) as stack:
    print(stack.url, flush=True)
    stack.wait()
"""


def web_server(plan: StackPlan) -> ChildSpec:
    (plan.layout.run / "readyz").write_text("{}")
    argv = gate.command(
        plan.layout.gate, ("json",), "http.server", str(plan.port),
        "--bind", plan.host, "--directory", str(plan.layout.run),
    )  # fmt: skip
    return ChildSpec("api", argv, plan.layout.log("api"), folder=plan.layout.run, stage=3, stop_timeout_s=5)


def sleeper(plan: StackPlan) -> ChildSpec:
    return ChildSpec("beat", ("/bin/sleep", "600"), plan.layout.log("beat"), stage=3)


def no_preparation(plan: StackPlan) -> None:
    plan.layout.api_key.write_text("ft_key\n")


def options_for(folder: Path, **changes: object) -> StackOptions:
    options = StackOptions(
        data_dir=folder,
        port=0,
        train_workers=1,
        first_children=lambda plan: [web_server(plan)],
        later_children=lambda plan: [sleeper(plan)],
        prepare_database=no_preparation,
    )
    return replace(options, **changes)  # type: ignore[arg-type]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def nothing_lives(folder: Path) -> bool:
    identities = [read_pid_file(path) for path in Layout.of(folder).run.glob("*.pid")]
    return not any(one is not None and is_alive(one) for one in identities) and not Layout.of(folder).is_locked()


class TestStart:
    def test_serves_until_it_is_stopped_and_leaves_nothing(self, folder: Path) -> None:
        said: list[str] = []
        with start(options_for(folder, on_progress=said.append)) as stack:
            with urllib.request.urlopen(f"{stack.url}/readyz") as answer:
                assert answer.status == 200
            record = stack.plan.layout.read_stack_record()
            assert record is not None
            assert (record.pid, record.url, record.port) == (os.getpid(), stack.url, stack.plan.port)
            assert stack.log_names == ["redis", "api", "postgres", "beat"]
            assert all((stack.log_dir / f"{name}.log").exists() for name in stack.log_names)
            assert stack.key_file.read_text() == "ft_key\n"
            identities = [read_pid_file(path) for path in stack.plan.layout.run.glob("*.pid")]
            assert len(identities) == 4
        assert all(one is not None and not is_alive(one) for one in identities)
        assert nothing_lives(folder)
        assert stack.plan.layout.read_stack_record() is None
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{stack.url}/readyz")
        assert said == ["starting Postgres and Redis", "migrating the database", "starting the API and the workers"]

    def test_nothing_serves_before_the_database_is_prepared(self, folder: Path) -> None:
        """Given the API starts with Postgres, it waits at the gate until the migrations are done. Twice."""
        seen: list[str] = []

        def prepare(plan: StackPlan) -> None:
            with psycopg.connect(plan.database_url.replace("+psycopg", "")) as connection:
                row = connection.execute("SELECT current_database()").fetchone()
            assert row == ("foretune",)
            with socket.socket() as endpoint:
                seen.append("served" if endpoint.connect_ex((plan.host, plan.port)) == 0 else "refused")

        for _ in range(2):
            start(options_for(folder, prepare_database=prepare)).stop()
        assert seen == ["refused", "refused"]

    def test_a_live_folder_is_refused_with_its_url_and_pid(self, folder: Path) -> None:
        with start(options_for(folder)) as stack:
            with pytest.raises(StackError) as caught:
                start(options_for(folder))
            assert caught.value.fault is StackFault.FOLDER_IN_USE
            assert stack.url in caught.value.message
            assert f"pid {os.getpid()}" in caught.value.message
            with urllib.request.urlopen(f"{stack.url}/readyz") as answer:
                assert answer.status == 200

    def test_a_dead_api_comes_back(self, folder: Path) -> None:
        with start(options_for(folder)) as stack:
            first = stack.supervisor.pid("api")
            assert first is not None
            os.kill(first, signal.SIGKILL)
            while not answers(stack.url):
                time.sleep(0.05)
            assert stack.supervisor.pid("api") != first


class TestWrong:
    """Each thing that can be wrong has its message, and leaves nothing running."""

    def test_a_taken_port_says_by_whom(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(
                StackError, match=rf"port {port} on 127.0.0.1 is taken by pid {os.getpid()} \("
            ) as caught:
                start(options_for(folder, port=port))
        assert caught.value.fault is StackFault.PORT_TAKEN
        assert nothing_lives(folder)

    def test_an_address_of_another_machine(self, folder: Path) -> None:
        with pytest.raises(StackError, match=r"cannot listen on 192\.0\.2\.1:") as caught:
            start(options_for(folder, host="192.0.2.1"))
        assert caught.value.fault is StackFault.BAD_ADDRESS

    def test_a_full_disk(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.embedded.layout.shutil.disk_usage", lambda _: _Usage(free=50 * 2**20))
        with pytest.raises(StackError, match="has 50 MB free and at least 200 MB are needed") as caught:
            start(options_for(folder))
        assert caught.value.fault is StackFault.DISK_FULL
        assert nothing_lives(folder)

    def test_another_platform(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("service.embedded.stack.sys.platform", "win32")
        with pytest.raises(StackError, match="not on win32; use WSL or docker compose") as caught:
            start(options_for(folder))
        assert caught.value.fault is StackFault.UNSUPPORTED_PLATFORM

    def test_a_setting_that_cannot_be_used(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORETUNE_MAX_UPLOAD_BYTES", "-1")
        with pytest.raises(StackError, match="FORETUNE_MAX_UPLOAD_BYTES is '-1': Input should be greater") as caught:
            start(options_for(folder))
        assert caught.value.fault is StackFault.BAD_SETTING
        assert nothing_lives(folder)

    def test_a_failed_preparation_stops_all(self, folder: Path) -> None:
        def too_new(plan: StackPlan) -> None:
            raise StackError(StackFault.SCHEMA_TOO_NEW, "the database is at revision 99")

        with pytest.raises(StackError, match="revision 99"):
            start(options_for(folder, prepare_database=too_new))
        assert nothing_lives(folder)

    def test_an_api_that_cannot_run_shows_its_last_words(self, folder: Path) -> None:
        def broken(plan: StackPlan) -> Sequence[ChildSpec]:
            argv = (sys.executable, "-c", "raise SystemExit('FORETUNE_X is not a number')")
            return [ChildSpec("api", argv, plan.layout.log("api"), stage=3)]

        with pytest.raises(StackError, match=r"api ended with status 1 .*api\.log\n  \| FORETUNE_X is not") as caught:
            start(options_for(folder, first_children=broken))
        assert caught.value.fault is StackFault.CHILD_FAILED
        assert nothing_lives(folder)

    def test_never_ready_says_what_readyz_said(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def unready(plan: StackPlan) -> Sequence[ChildSpec]:
            spec = web_server(plan)
            (plan.layout.run / "readyz").unlink()
            return [spec]

        monkeypatch.setattr("service.embedded.stack.READY_TIMEOUT_S", 0.0)
        with pytest.raises(StackError, match="readyz was not OK") as caught:
            start(options_for(folder, first_children=unready))
        assert caught.value.fault is StackFault.NOT_READY
        assert nothing_lives(folder)

    def test_ctrl_c_during_the_start(self, folder: Path) -> None:
        def interrupted(plan: StackPlan) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            start(options_for(folder, prepare_database=interrupted))
        assert nothing_lives(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="needs parent-death signals")
def test_after_kill_9_nothing_lives_and_the_next_start_says_what_it_cleaned(folder: Path) -> None:
    here = str(Path(__file__).parent)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(folder), here], stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline().startswith(b"http://127.0.0.1:")
        killed.kill()
    said: list[str] = []
    with start(options_for(folder, on_progress=said.append)):
        pass
    cleaned = [match[1] for sentence in said if (match := CLEANED.match(sentence))]
    assert sorted(cleaned) == ["api", "beat", "postgres", "redis"]
    assert nothing_lives(folder)


class TestPlan:
    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("127.0.0.1", "http://127.0.0.1:80"),
            ("0.0.0.0", "http://127.0.0.1:80"),
            ("::1", "http://[::1]:80"),
            ("::", "http://[::1]:80"),
            ("box.example", "http://box.example:80"),
        ],
    )
    def test_the_url_is_one_that_a_client_here_can_use(self, folder: Path, host: str, url: str) -> None:
        assert StackPlan(Layout.of(folder), host, 80, 1, "", "").url == url

    def test_workers_share_out_the_gpus_that_may_be_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-abc")
        assert visible_gpus() == ("2", "GPU-abc")
        assert default_train_workers(visible_gpus()) == 2
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        assert visible_gpus() == ()
        assert 1 <= default_train_workers(()) <= 8


class TestPorts:
    def test_zero_is_any_free_port(self) -> None:
        assert ports.claim_port("127.0.0.1", 0) > 0

    def test_a_free_port_has_no_holder(self) -> None:
        assert ports.port_holder(ports.claim_port("127.0.0.1", 0)) is None


class _Usage:
    """What shutil.disk_usage gives, as far as it is read."""

    def __init__(self, free: int) -> None:
        self.free = free
