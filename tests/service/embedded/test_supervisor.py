"""The supervisor, with small real processes as children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.embedded.child import ChildEvent, ChildEventKind, ChildState
from service.embedded.faults import StackError, StackFault
from service.embedded.processes import (
    Identity,
    end_leftovers,
    identify,
    is_alive,
    log_tail,
    read_pid_file,
    session_members,
    write_pid_file,
)
from service.embedded.spawning import ChildSpec
from service.embedded.supervisor import Supervisor

SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
PARENT_OF_ONE = (
    "import subprocess, sys, time; child = subprocess.Popen(['/bin/sleep', '600']); "
    "print(child.pid, flush=True); time.sleep(600)"
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and parent-death signals")


def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Wait for `condition`; the limit only bounds a failure."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def events() -> list[ChildEvent]:
    return []


@pytest.fixture
def supervisor(folder: Path, events: list[ChildEvent]) -> Iterator[Supervisor]:
    one = Supervisor(folder, events.append)
    yield one
    one.hurry()
    one.close()


def python(folder: Path, name: str, program: str, **more: object) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-c", program), folder / f"{name}.log", **more)  # type: ignore[arg-type]


class TestStart:
    def test_output_goes_to_the_log_and_the_pid_file_names_the_child(
        self, folder: Path, supervisor: Supervisor
    ) -> None:
        supervisor.start(python(folder, "one", "import os; print(os.getpid(), flush=True); " + SLEEP))
        supervisor.wait_ready("one", timeout_s=10)
        # An unbuffered child writes the end of the line by itself.
        assert eventually(lambda: (folder / "one.log").read_text().endswith("\n"))
        assert (folder / "one.log").read_text() == f"{supervisor.pid('one')}\n"
        identity = read_pid_file(folder / "one.pid")
        assert identity is not None
        assert identity.pid == supervisor.pid("one")
        assert is_alive(identity)

    def test_waits_for_what_ready_says(self, folder: Path, supervisor: Supervisor) -> None:
        sign = folder / "sign"
        supervisor.start(python(folder, "one", SLEEP, ready=lambda _: sign.exists()))
        with pytest.raises(StackError, match="one was not ready after 0 s") as caught:
            supervisor.wait_ready("one", timeout_s=0.1)
        assert caught.value.fault is StackFault.NOT_READY
        sign.touch()
        supervisor.wait_ready("one", timeout_s=10)

    def test_a_name_is_used_once(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.start(python(folder, "one", SLEEP))
        with pytest.raises(ValueError, match="named 'one' exists"):
            supervisor.start(python(folder, "one", SLEEP))

    def test_a_program_that_does_not_exist_is_a_crash_loop_with_its_reason(
        self, folder: Path, supervisor: Supervisor
    ) -> None:
        supervisor.start(ChildSpec("none", ("/does/not/exist",), folder / "none.log", ready=lambda _: False))
        with pytest.raises(StackError, match="/does/not/exist"):
            supervisor.wait_ready("none", timeout_s=30)


class TestDeath:
    def test_a_killed_child_is_started_again(
        self, folder: Path, supervisor: Supervisor, events: list[ChildEvent]
    ) -> None:
        supervisor.start(python(folder, "one", SLEEP))
        first = supervisor.pid("one")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: supervisor.pid("one") not in (None, first))
        died = next(event for event in events if event.kind is ChildEventKind.DIED)
        assert died.detail == "one was killed by SIGKILL; starting it again in 0.25 s"

    @linux_only
    def test_what_it_had_started_does_not_outlive_it(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.start(python(folder, "one", PARENT_OF_ONE))
        assert eventually(lambda: (folder / "one.log").read_text().endswith("\n"))
        grandchild = identify(int((folder / "one.log").read_text()))
        assert grandchild is not None
        os.kill(supervisor.pid("one") or 0, signal.SIGKILL)
        assert eventually(lambda: not is_alive(grandchild))

    def test_a_crash_loop_is_reported_with_the_last_log_lines(
        self, folder: Path, supervisor: Supervisor, events: list[ChildEvent]
    ) -> None:
        (folder / "bad.log").write_text("an old line\n")
        supervisor.start(python(folder, "bad", "raise SystemExit('no such table: trials')", ready=lambda _: False))
        with pytest.raises(StackError) as caught:
            supervisor.wait_ready("bad", timeout_s=60)
        assert caught.value.fault is StackFault.CHILD_FAILED
        assert "bad ended with status 1 (4 times in a row)" in caught.value.message
        assert "| no such table: trials" in caught.value.message
        assert "an old line" not in caught.value.message
        assert eventually(lambda: [event.kind for event in events][-1:] == [ChildEventKind.CRASH_LOOP])
        with pytest.raises(StackError, match="no such table"):
            supervisor.raise_for_crash_loop()

    def test_a_child_not_to_be_restarted_stays_down(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.start(python(folder, "once", "pass", restart=False))
        assert eventually(lambda: supervisor.state("once") is ChildState.STOPPED)
        assert not (folder / "once.pid").exists()


class TestStop:
    def test_higher_stages_end_before_lower_ones_are_asked(self, folder: Path, supervisor: Supervisor) -> None:
        note = (
            "import signal, sys, time\n"
            "def end(*_):\n"
            "    time.sleep(0.05)\n"
            f"    open({str(folder / 'order')!r}, 'a').write(sys.argv[1] + '\\n')\n"
            "    sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(600)"
        )
        for name, stage in (("api", 3), ("worker", 2), ("beat", 3), ("database", 0)):
            argv = (sys.executable, "-c", note, str(stage))
            supervisor.start(ChildSpec(name, argv, folder / f"{name}.log", stage=stage))
            assert eventually(lambda name=name: (folder / f"{name}.log").read_text() == "ready\n")  # type: ignore[misc]
        supervisor.stop()
        assert (folder / "order").read_text().split() == ["3", "3", "2", "0"]
        assert not list(folder.glob("*.pid"))

    def test_a_deaf_child_is_killed_after_its_time(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.start(python(folder, "deaf", STUBBORN, stop_timeout_s=0.1))
        assert eventually(lambda: (folder / "deaf.log").read_text() == "deaf\n")
        identity = read_pid_file(folder / "deaf.pid")
        supervisor.stop("deaf")
        assert identity is not None
        assert not is_alive(identity)

    def test_hurry_kills_what_would_be_waited_for(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.start(python(folder, "deaf", STUBBORN, stop_timeout_s=3600))
        assert eventually(lambda: (folder / "deaf.log").read_text() == "deaf\n")
        stopping = threading.Thread(target=supervisor.stop)
        stopping.start()
        supervisor.hurry()
        stopping.join(timeout=30)
        assert not stopping.is_alive()
        assert supervisor.pid("deaf") is None

    def test_stopped_children_can_be_resumed(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.start(python(folder, "one", SLEEP))
        supervisor.stop("one")
        assert supervisor.pid("one") is None
        supervisor.resume("one")
        supervisor.wait_ready("one", timeout_s=10)
        assert supervisor.pid("one") is not None

    def test_close_twice_is_close_once(self, folder: Path, supervisor: Supervisor) -> None:
        supervisor.start(python(folder, "one", SLEEP))
        supervisor.close()
        supervisor.close()
        assert supervisor.state("one") is ChildState.STOPPED


@linux_only
class TestKilledSupervisor:
    def test_its_children_end_with_it(self, folder: Path) -> None:
        program = (
            "import sys, time; from pathlib import Path\n"
            "from service.embedded.spawning import ChildSpec\n"
            "from service.embedded.supervisor import Supervisor\n"
            "folder = Path(sys.argv[1]); one = Supervisor(folder)\n"
            "one.start(ChildSpec('one', ('/bin/sleep', '600'), folder / 'one.log'))\n"
            "print(one.pid('one'), flush=True); time.sleep(600)"
        )
        with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE) as killed:
            assert killed.stdout is not None
            child = identify(int(killed.stdout.readline()))
            killed.kill()
        assert child is not None
        assert eventually(lambda: not is_alive(child))


class TestLeftovers:
    def test_a_living_one_is_ended_and_said(self, folder: Path) -> None:
        left = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
        identity = identify(left.pid)
        assert identity is not None
        write_pid_file(folder / "train-1.pid", identity)
        reaper = threading.Thread(target=left.wait)
        reaper.start()
        sentences = end_leftovers(folder)
        reaper.join(timeout=30)
        assert left.returncode == -signal.SIGTERM
        assert sentences == [f"stopped train-1 (pid {left.pid}), left behind by a stack that was killed"]
        assert not list(folder.glob("*.pid"))

    def test_a_deaf_one_is_killed(self, folder: Path) -> None:
        left = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True)
        assert left.stdout is not None
        assert left.stdout.readline() == b"deaf\n"
        left.stdout.close()
        identity = identify(left.pid)
        assert identity is not None
        write_pid_file(folder / "api.pid", identity)
        reaper = threading.Thread(target=left.wait)
        reaper.start()
        sentences = end_leftovers(folder, timeout_s=0.1)
        reaper.join(timeout=30)
        assert left.returncode == -signal.SIGKILL
        assert sentences[0].startswith("killed api")

    def test_a_stale_file_is_removed_and_said(self, folder: Path) -> None:
        gone = subprocess.Popen(["/bin/true"])
        gone.wait()
        write_pid_file(folder / "api.pid", Identity(gone.pid, "some boot:1"))
        assert end_leftovers(folder) == [f"removed stale api.pid (pid {gone.pid} is gone)"]

    def test_a_pid_that_is_another_programs_now_is_left_alone(self, folder: Path) -> None:
        other = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
        try:
            write_pid_file(folder / "api.pid", Identity(other.pid, "some boot:1"))
            assert end_leftovers(folder) == [f"removed stale api.pid (pid {other.pid} is gone)"]
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()

    def test_an_unreadable_file_is_removed(self, folder: Path) -> None:
        (folder / "api.pid").write_text("{")
        assert end_leftovers(folder) == ["removed unreadable api.pid"]

    @linux_only
    def test_orphans_of_a_dead_leader_are_killed_only_when_they_carry_the_mark(self, folder: Path) -> None:
        orphan_maker = (
            "import subprocess\n"  # its output would keep our end of the pipe open
            "print(subprocess.Popen(['/bin/sleep', '600'], stdout=subprocess.DEVNULL).pid)"
        )
        orphans = []
        for mark in (str(folder.resolve()), "/another/stack"):
            leader = subprocess.Popen(
                [sys.executable, "-c", orphan_maker],
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "FORETUNE_RUN_FOLDER": mark},
            )
            output, _ = leader.communicate()
            orphan = identify(int(output))
            assert orphan is not None
            assert session_members(leader.pid) == [orphan.pid]
            orphans.append(orphan)
            write_pid_file(folder / f"train-{len(orphans)}.pid", Identity(leader.pid, "this boot:1"))
        try:
            end_leftovers(folder)
            assert eventually(lambda: not is_alive(orphans[0]))
            assert is_alive(orphans[1])
        finally:
            os.kill(orphans[1].pid, signal.SIGKILL)


def test_the_tail_of_a_log_is_its_last_lines(folder: Path) -> None:
    log = folder / "log"
    assert log_tail(log) == ""
    log.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert log_tail(log, lines=2) == "line 4998\nline 4999"
    size = log.stat().st_size
    with log.open("a") as file:
        file.write("new\n")
    assert log_tail(log, from_byte=size) == "new"
