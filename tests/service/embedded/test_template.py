"""What is made ahead for a start on an empty folder: copied where it fits, done without where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db import migrate
from service.embedded import postgres, template
from service.embedded.servers import embedded_servers
from tests.service.embedded.writing import connect
from tests.small_disk import run_on_small_disk

pytestmark = pytest.mark.usefixtures("nothing_left_running")
INITDB = "The files belonging to this database system"
_COPY = """
import sys
from dataclasses import replace
from pathlib import Path
from service.embedded import postgres, template
from service.embedded.faults import StackError
from service.embedded.layout import Layout
from service.embedded.spawning import RunAs
template._FOLDER = Path(sys.argv[1])
layout = Layout.of(Path(sys.argv[2]))
layout.create()
try:
    postgres.prepare_cluster(replace(postgres.locate_cluster(layout), run_as=RunAs()), layout)
except StackError as error:
    print(error.fault, layout.postgres.exists(), len(list(layout.postgres.parent.glob("*postgres*"))))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A template in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "_FOLDER", tmp_path_factory.mktemp("share") / "foretune")
        found = template.make()
        if found is None:
            pytest.skip("Postgres runs as another user here")
        yield found


def test_a_fresh_folder_has_the_schema_and_the_data_sets(made: Path, folder: Path) -> None:
    with embedded_servers(folder) as servers, connect(servers) as connection:
        migrate.check(servers.database_url)
        rows = connection.execute("SELECT name FROM datasets ORDER BY name").fetchall()
        assert [name for (name,) in rows] == ["breast_cancer", "diabetes", "digits", "iris", "wine"]
        keys = connection.execute("SELECT count(*) FROM api_keys").fetchone()
        assert keys == (0,), "a key that every folder has is no secret"
    assert len(list((folder / "artifacts").rglob("*.safetensors"))) == 5
    assert INITDB not in (folder / "logs" / "postgres.log").read_text()
    assert sorted(path.name for path in made.iterdir()) == ["artifacts", "postgres"]


def test_it_is_made_once(made: Path) -> None:
    before = made.stat().st_mtime_ns
    assert template.make() == made
    assert made.stat().st_mtime_ns == before
    assert list(made.parent.iterdir()) == [made]


def test_other_binaries_or_migrations_have_one_of_their_own(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries = postgres.find_binaries()
    assert template.place(binaries) == made
    (tmp_path / "postgres").touch()
    assert template.place(tmp_path) != made
    (tmp_path / "0001_other.py").write_text("revision = '0001'")
    monkeypatch.setattr(template, "_MIGRATIONS", tmp_path)
    assert template.place(binaries) != made


def test_a_damaged_one_is_done_without(made: Path, folder: Path) -> None:
    (made / "postgres").rename(made / "elsewhere")
    try:
        with embedded_servers(folder) as servers:
            connect(servers).close()
            migrate.upgrade(servers.database_url)
            migrate.check(servers.database_url)
    finally:
        (made / "elsewhere").rename(made / "postgres")
    assert INITDB in (folder / "logs" / "postgres.log").read_text()


def test_a_disk_that_is_full_in_the_middle_is_said_and_nothing_is_left(made: Path, tmp_path: Path) -> None:
    """On a disk of 8 MB, in a mount namespace of its own."""
    small = tmp_path / "small"
    done = run_on_small_disk(small, "8m", _COPY, str(made.parent), f"{small}/data")
    assert done.stdout.split() == ["disk_full", "False", "0"], done.stderr
