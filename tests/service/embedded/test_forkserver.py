"""Children forked off a warm interpreter behave as those that are started as programs of their own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.embedded import children, gate
from service.embedded.child import ChildEvent, ChildEventKind, ChildState
from service.embedded.children import StackPlan
from service.embedded.faults import StackError
from service.embedded.layout import Layout
from service.embedded.processes import identify, is_alive, read_pid_file
from service.embedded.spawning import ChildSpec, fork_server_is_supported
from service.embedded.supervisor import Supervisor

pytestmark = pytest.mark.skipif(not fork_server_is_supported(), reason="Linux only")

# A module that says who it is, then stays.
WITNESS = """
import json, os, sys, time
print(json.dumps({
    "argv": sys.argv, "name": __name__, "parent": os.getppid(), "session": os.getsid(0), "folder": os.getcwd(),
    "word": os.environ.get("WORD"), "path": "PATH" in os.environ, "stdin": sys.stdin.read(),
    "warm": "wave" in sys.modules, "colour": "colorsys" in sys.modules,
}), flush=True)
time.sleep(600)
"""
KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_forkserver import server_in, witness_in
from service.embedded.supervisor import Supervisor
folder = Path(sys.argv[1])
supervisor = Supervisor(folder)
supervisor.preload(server_in(folder))
supervisor.start(witness_in(folder))
time.sleep(600)
"""


def eventually(condition: Callable[[], bool], within_s: float = 60.0) -> bool:
    """Wait for `condition`; the limit only bounds a failure."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def server_in(folder: Path, imports: str = "wave") -> ChildSpec:
    argv = (sys.executable, "-m", "service.embedded.forkserver", imports)
    return ChildSpec("forkserver", argv, folder / "forkserver.log", folder=folder)


def witness_in(folder: Path, module: str = "witness", text: str = WITNESS) -> ChildSpec:
    (folder / f"{module}.py").write_text(text)
    (folder / "gate").touch()
    arguments = (folder / "gate", ("colorsys",), module, "--one", "two")
    return ChildSpec(
        name=module,
        argv=gate.command(*arguments),
        gated=gate.gated(*arguments),
        log=folder / f"{module}.log",
        environment={"WORD": "forty-two", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        folder=folder,
        stop_timeout_s=5.0,
    )


def said_by(folder: Path, module: str) -> dict[str, object]:
    import json

    log = folder / f"{module}.log"
    assert eventually(lambda: log.exists() and log.read_text().endswith("\n")), log.read_text()
    said = json.loads(log.read_text().splitlines()[-1])
    assert isinstance(said, dict)
    return said


@pytest.fixture
def events() -> list[ChildEvent]:
    return []


@pytest.fixture
def supervisor(folder: Path, events: list[ChildEvent]) -> Iterator[Supervisor]:
    one = Supervisor(folder, events.append)
    yield one
    one.hurry()
    one.close()


class TestFork:
    def test_differs_from_a_program_of_its_own_in_nothing_but_what_is_imported(
        self, folder: Path, supervisor: Supervisor
    ) -> None:
        supervisor.preload(server_in(folder))
        supervisor.start(witness_in(folder))
        supervisor.wait_ready("witness", timeout_s=60)
        forked = said_by(folder, "witness")
        assert forked == {
            "argv": [str(folder / "witness.py"), "--one", "two"], "name": "__main__", "parent": os.getpid(),
            "session": supervisor.pid("witness"), "folder": str(folder), "word": "forty-two", "path": False,
            "stdin": "", "warm": True, "colour": True,
        }  # fmt: skip
        (folder / "witness.log").unlink()
        supervisor.start(replace(witness_in(folder), name="alone", gated=None))
        started = said_by(folder, "witness")
        assert started == {**forked, "warm": False, "session": supervisor.pid("alone")}

    def test_waits_at_the_gate(self, folder: Path, supervisor: Supervisor) -> None:
        spec = witness_in(folder)
        (folder / "gate").unlink()
        supervisor.preload(server_in(folder))
        supervisor.start(spec)
        supervisor.wait_ready("witness", timeout_s=60)
        assert eventually((folder / "witness.log").exists)
        assert (folder / "witness.log").read_text() == ""
        (folder / "gate").touch()
        assert said_by(folder, "witness")["name"] == "__main__"

    def test_is_recognised_stopped_and_reaped_like_any_child(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.preload(server_in(folder))
        supervisor.start(witness_in(folder))
        supervisor.wait_ready("witness", timeout_s=60)
        identity = read_pid_file(folder / "witness.pid")
        assert identity is not None
        assert identity.pid == supervisor.pid("witness")
        assert is_alive(identity)
        supervisor.stop("witness")
        assert not is_alive(identity)
        with pytest.raises(ProcessLookupError):
            os.kill(identity.pid, 0)

    def test_a_killed_one_is_forked_again(self, folder: Path, supervisor: Supervisor, events: list[ChildEvent]) -> None:
        supervisor.preload(server_in(folder))
        supervisor.start(witness_in(folder))
        supervisor.wait_ready("witness", timeout_s=60)
        first = supervisor.pid("witness")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: supervisor.pid("witness") not in (None, first))
        assert said_by(folder, "witness")["warm"] is True
        died = next(event for event in events if event.kind is ChildEventKind.DIED)
        assert died.detail.startswith("witness was killed by SIGKILL")

    def test_a_module_that_fails_shows_its_last_words(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.preload(server_in(folder))
        supervisor.start(
            replace(witness_in(folder, "broken", "raise SystemExit('no such setting')"), ready=lambda _: False)
        )
        with pytest.raises(StackError, match=r"broken ended with status 1 \(4 times in a row\)(?s:.*)no such setting"):
            supervisor.wait_ready("broken", timeout_s=60)


class TestServer:
    @pytest.mark.parametrize("imports", ["no_such_module", "wave,antigravity.nothing"])
    def test_one_that_cannot_import_is_done_without(self, folder: Path, supervisor: Supervisor, imports: str) -> None:
        supervisor.preload(server_in(folder, imports))
        supervisor.start(witness_in(folder))
        supervisor.wait_ready("witness", timeout_s=60)
        assert said_by(folder, "witness")["warm"] is False
        assert "ModuleNotFoundError" in (folder / "forkserver.log").read_text()

    def test_its_death_harms_no_child_and_no_later_one(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.preload(server_in(folder))
        supervisor.start(witness_in(folder))
        supervisor.wait_ready("witness", timeout_s=60)
        assert said_by(folder, "witness")["warm"] is True
        pid = supervisor.pid("witness")
        os.kill(_server_pid(folder), signal.SIGKILL)
        supervisor.start(witness_in(folder, "later"))
        assert said_by(folder, "later")["warm"] is False
        assert supervisor.pid("witness") == pid
        assert supervisor.state("witness") is ChildState.READY

    def test_ends_with_the_supervisor(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.preload(server_in(folder))
        supervisor.start(witness_in(folder))
        supervisor.wait_ready("witness", timeout_s=60)
        server = identify(_server_pid(folder))
        assert server is not None
        supervisor.close()
        assert not is_alive(server)

    def test_when_the_supervisor_is_killed_neither_it_nor_its_forks_live_on(self, folder: Path) -> None:
        here = str(Path(__file__).parent)
        with subprocess.Popen([sys.executable, "-c", KILLED, str(folder), here]) as killed:
            assert eventually((folder / "witness.pid").exists)
            child = read_pid_file(folder / "witness.pid")
            server = identify(_server_pid(folder))
            killed.kill()
        assert child is not None
        assert server is not None
        assert eventually(lambda: not is_alive(child))
        assert eventually(lambda: not is_alive(server))

    def test_other_orphans_of_this_process_are_not_adopted(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.preload(server_in(folder))
        supervisor.start(witness_in(folder))
        supervisor.wait_ready("witness", timeout_s=60)
        orphan_maker = (
            "import subprocess\n"  # its output would keep our end of the pipe open
            "print(subprocess.Popen(['/bin/sleep', '600'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
        )
        made = subprocess.run([sys.executable, "-c", orphan_maker], capture_output=True, text=True, check=True)
        orphan = int(made.stdout)
        try:
            parent = int(Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()[1])
            assert parent != os.getpid()
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_what_is_shared_exists_and_starts_no_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is gone would silently cost every start a second; a thread would make forking unsafe."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    program = (
        "import os, sys\n"
        "from service.embedded import gate\n"
        "gate.import_all(sys.argv[1])\n"
        "print(len(os.listdir('/proc/self/task')), 'torch' in sys.modules, 'scipy.stats' in sys.modules)"
    )
    plan = StackPlan(Layout.of(folder), "127.0.0.1", 1, 1, "postgresql+psycopg://x@/x", "unix:///x")
    environment = {**os.environ, **(children.fork_server(plan).environment or {})}
    answer = subprocess.run(
        [sys.executable, "-c", program, ",".join(children.SHARED_IMPORTS)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert answer.stdout == "1 False False\n", answer.stderr


def test_what_each_process_imports_before_the_gate_exists(folder: Path) -> None:
    plan = StackPlan(Layout.of(folder), "127.0.0.1", 1, 1, "postgresql+psycopg://x@/x", "unix:///x")
    forked = [children.desk_worker(plan), children.train_worker(plan, 1), children.beat(plan)]
    for spec in (children.api(plan), *forked):
        for name in filter(None, spec.argv[4].split(",")):
            assert importlib.util.find_spec(name) is not None, name
    assert [spec.argv[3:] for spec in forked] == [spec.gated for spec in forked]
    assert children.api(plan).gated is None


def _server_pid(folder: Path) -> int:
    """The pid of the fork server of `folder`, among our own session's descendants."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                mine = (entry / "cwd").readlink() == folder and b"service.embedded.forkserver" in words
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            if mine and not name.startswith("ft-"):
                return int(entry.name)
    raise AssertionError("no fork server runs")
