"""The data folder: who may use it, where its sockets go, what is said when it cannot be used."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from service.embedded.faults import EXIT_STATUS, StackError, StackFault
from service.embedded.layout import Layout, StackRecord, rotate_log, write_private


@pytest.fixture
def layout(folder: Path) -> Layout:
    layout = Layout.of(folder / "data")
    layout.create()
    return layout


class TestCreate:
    def test_makes_private_folders(self, layout: Layout) -> None:
        for path in (layout.root, layout.redis, layout.artifacts, layout.logs, layout.run):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700

    def test_closes_a_folder_that_was_open_to_others(self, folder: Path) -> None:
        folder.chmod(0o755)
        Layout.of(folder).create()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_a_file_in_its_place_is_refused(self, folder: Path) -> None:
        (folder / "file").write_text("")
        with pytest.raises(StackError, match="cannot write to") as caught:
            Layout.of(folder / "file").create()
        assert caught.value.fault is StackFault.FOLDER_NOT_WRITABLE

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of somebody else")
    def test_somebody_elses_folder_is_refused(self, folder: Path) -> None:
        os.chown(folder, 12345, 12345)
        with pytest.raises(StackError, match="belongs to user 12345") as caught:
            Layout.of(folder).create()
        assert caught.value.fault is StackFault.FOLDER_NOT_WRITABLE

    def test_a_relative_folder_becomes_absolute(self) -> None:
        assert Layout.of(Path("here")).root == Path.cwd() / "here"


class TestSpace:
    def test_enough_is_silent(self, layout: Layout) -> None:
        layout.check_free_space(minimum_bytes=1)

    def test_too_little_says_how_much(self, layout: Layout) -> None:
        with pytest.raises(StackError, match=r"MB free and at least 1073741824 MB are needed") as caught:
            layout.check_free_space(minimum_bytes=2**50)
        assert caught.value.fault is StackFault.DISK_FULL


class TestLock:
    def test_a_second_process_is_refused_and_told_where_the_first_is(self, layout: Layout) -> None:
        with layout.locked():
            layout.write_stack_record(
                StackRecord(os.getpid(), "http://127.0.0.1:1", "127.0.0.1", 1, "2026-01-01T00:00:00+00:00", "", "")
            )
            assert layout.is_locked()
            with pytest.raises(StackError, match=rf"http://127.0.0.1:1 \(pid {os.getpid()}\)") as caught:
                layout.locked().__enter__()
        assert caught.value.fault is StackFault.FOLDER_IN_USE
        assert not layout.is_locked()

    def test_a_killed_holder_holds_nothing(self, layout: Layout) -> None:
        program = (
            "import sys, time; from pathlib import Path; from service.embedded.layout import Layout\n"
            "with Layout(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", program, str(layout.root)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert layout.is_locked()
            holder.kill()
        with layout.locked():
            assert layout.lock.read_text() == f"{os.getpid()}\n"

    def test_a_child_does_not_inherit_it(self, layout: Layout) -> None:
        with layout.locked():
            child = subprocess.Popen(["/bin/sleep", "60"])
        try:
            assert not layout.is_locked()
        finally:
            child.kill()
            child.wait()


class TestSockets:
    def test_live_in_the_data_folder_when_they_can(self, layout: Layout) -> None:
        assert layout.sockets() == layout.run

    @pytest.mark.parametrize("name", ["x" * 100, "a,b", "a:b", "with space", "ä"])
    def test_move_to_a_short_private_folder_when_the_path_would_not_do(self, folder: Path, name: str) -> None:
        layout = Layout.of(folder / name)
        layout.create()
        sockets = layout.sockets()
        try:
            assert sockets != layout.run
            assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
            assert layout.sockets() == sockets, "the same folder for every process of the stack"
            with socket.socket(socket.AF_UNIX) as endpoint:
                endpoint.bind(str(sockets / ".s.PGSQL.5432"))
        finally:
            (sockets / ".s.PGSQL.5432").unlink(missing_ok=True)
            sockets.rmdir()

    def test_a_planted_folder_of_the_same_name_is_not_used(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layout = Layout.of(folder / ("x" * 100))
        layout.create()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
        mine = layout.sockets()
        assert mine.parent == folder
        mine.rmdir()
        mine.symlink_to(layout.root)
        elsewhere = layout.sockets()
        assert elsewhere.parent != folder
        elsewhere.rmdir()


class TestFiles:
    def test_a_private_file_is_private_from_its_first_moment(self, folder: Path) -> None:
        write_private(folder / "key", "secret\n")
        assert (folder / "key").read_text() == "secret\n"
        assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
        assert [path.name for path in folder.iterdir()] == ["key"]

    def test_a_broken_stack_record_counts_as_none(self, layout: Layout) -> None:
        layout.stack_record.write_text('{"pid": ')
        assert layout.read_stack_record() is None
        layout.stack_record.write_text('{"pid": 1}')
        assert layout.read_stack_record() is None

    def test_a_long_log_is_put_aside_and_a_short_one_kept(self, folder: Path) -> None:
        log = folder / "api.log"
        log.write_bytes(b"x" * 100)
        rotate_log(log, limit_bytes=100)
        assert log.exists()
        rotate_log(log, limit_bytes=99)
        assert not log.exists()
        assert (folder / "api.log.1").stat().st_size == 100


def test_every_fault_has_an_exit_status_of_its_own() -> None:
    assert set(EXIT_STATUS) == set(StackFault)
    assert len(set(EXIT_STATUS.values())) == len(StackFault)
    assert all(1 < status < 126 for status in EXIT_STATUS.values())
