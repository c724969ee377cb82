"""Servers that root starts as others, and that others start: Postgres refuses to run as root."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from service.embedded import launch, postgres
from service.embedded.layout import Layout
from service.embedded.servers import embedded_servers
from service.embedded.spawning import RunAs
from service.embedded.supervisor import Supervisor
from tests.service.embedded.writing import WRITER

pytestmark = pytest.mark.usefixtures("nothing_left_running")
ORDINARY_UID = 65534
REPOSITORY = Path(postgres.__file__).parents[2]


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="needs root, to become others")
class TestOtherUsers:
    @pytest.fixture
    def own_folder(self, folder: Path) -> Path:
        os.chown(folder, ORDINARY_UID, ORDINARY_UID)
        return folder

    def test_an_ordinary_user_runs_both_servers(self, own_folder: Path) -> None:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not installed")
        ids = (f"--reuid={ORDINARY_UID}", f"--regid={ORDINARY_UID}", "--clear-groups")
        answer = subprocess.run(
            ["setpriv", *ids, _python_for_everybody(), "-c", WRITER, str(own_folder / "data"), "3"],
            capture_output=True, text=True, cwd="/tmp", check=False,
            env={"HOME": str(own_folder), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1",
                 "PYTHONPATH": os.pathsep.join((str(REPOSITORY), *filter(None, sys.path)))},
        )  # fmt: skip
        assert answer.stdout.split() == ["up", "0", "1", "2"], answer.stderr
        assert (own_folder / "data" / "postgres" / "PG_VERSION").stat().st_uid == ORDINARY_UID

    def test_a_user_who_is_root_outside_a_container_runs_both_servers(self, folder: Path) -> None:
        """Inside a user namespace we are user 1000: the servers are started directly, as for anyone."""
        answer = subprocess.run(
            [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), "15", "namespace:1000:1000", "--",
             sys.executable, "-c", WRITER, str(folder / "data"), "3"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert answer.stdout.split() == ["up", "0", "1", "2"], answer.stderr

    def test_root_creates_no_user_and_opens_no_folder(self, folder: Path) -> None:
        users = Path("/etc/passwd").read_bytes()
        with embedded_servers(folder / "deep" / "data") as servers:
            pid = servers.pid("postgres")
            assert pid is not None
            assert Path(f"/proc/{pid}").stat().st_uid == 0, "outside its namespace it is root's process"
        assert Path("/etc/passwd").read_bytes() == users
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_where_namespaces_are_refused_nobody_runs_it(self, folder: Path) -> None:
        folder.chmod(0o711)
        layout = Layout.of(folder / "data")
        layout.create()
        user = RunAs("switch", ORDINARY_UID, ORDINARY_UID)
        with self._postgres_of(layout, user, folder) as pid:
            assert Path(f"/proc/{pid}").stat().st_uid == ORDINARY_UID
            assert layout.postgres.is_symlink()
            assert stat.S_IMODE(layout.postgres.resolve().parent.stat().st_mode) == 0o700
        again = postgres.locate_cluster(layout)
        assert again.run_as == user, "a later start goes by the owner of the files"
        assert again.data == layout.postgres.resolve()

    @staticmethod
    def _postgres_of(layout: Layout, user: RunAs, reachable: Path) -> _Running:
        return _Running(layout, user, reachable)

    def test_binaries_that_nobody_can_reach_are_copied(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.chmod(0o711)
        layout = Layout.of(folder / "data")
        layout.create()
        monkeypatch.setattr(postgres, "_is_public", lambda path: False)
        user = RunAs("switch", ORDINARY_UID, ORDINARY_UID)
        with self._postgres_of(layout, user, folder) as pid:
            program = Path(f"/proc/{pid}/exe").readlink()
            assert program.is_relative_to(layout.postgres.resolve().parent)


class _Running:
    """A postmaster of `user` alone, as a context that gives its pid after a query was answered."""

    def __init__(self, layout: Layout, user: RunAs, reachable: Path) -> None:
        self._layout = layout
        self._cluster = postgres.locate_cluster(layout, run_as=user, reachable=reachable)
        self._supervisor = Supervisor(layout.run)

    def __enter__(self) -> int:
        postgres.prepare_cluster(self._cluster, self._layout)
        self._supervisor.start(postgres.server_spec(self._cluster))
        self._supervisor.wait_ready("postgres", timeout_s=60)
        with psycopg.connect(self._cluster.database_url.replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("foretune",)
        pid = self._supervisor.pid("postgres")
        assert pid is not None
        return pid

    def __exit__(self, *exception: object) -> None:
        self._supervisor.close()


def _python_for_everybody() -> str:
    """An interpreter of this version that every user may run: ours may live in root's home."""
    for path in (Path(sys.executable), Path(f"/usr/bin/python3.{sys.version_info.minor}")):
        if path.exists() and all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents):
            return str(path)
    pytest.skip("no Python that an ordinary user may run")
