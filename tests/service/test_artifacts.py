"""Artifacts appear whole or not at all, in a folder and in an object store; a full disk is a full disk."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from foretune.errors import NotFound, Unavailable
from service.artifacts import ArtifactStore
from tests.small_disk import run_on_small_disk

_FULL_DISK = """
import sys
from foretune.errors import StorageFull
from service.artifacts import ArtifactStore

store = ArtifactStore(sys.argv[1])
store.put_bytes("kept", b"x" * 1000)
for write in (lambda: store.put_bytes("big", b"x" * 2**20), lambda: store.put_bytes("kept", b"y" * 2**20)):
    try:
        write()
    except StorageFull as error:
        print(error.code)
print(store.exists("big"), store.read_bytes("kept") == b"x" * 1000)
"""


class _ClientLeft(Exception):
    pass


def _write_half(store: ArtifactStore, key: str) -> None:
    with store.writer(key) as file:
        file.write(b"half of it" * 100_000)
        raise _ClientLeft


@pytest.fixture(params=["folder", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """The two kinds: what holds for one holds for the other."""
    if request.param == "folder":
        return ArtifactStore(f"file://{tmp_path / 'artifacts'}")
    MemoryFileSystem.store.clear()
    return ArtifactStore("memory://bucket/prefix")


class TestBothKinds:
    def test_what_was_put_is_read(self, store: ArtifactStore) -> None:
        store.put_bytes("datasets/dst_1/upload", b"first")
        store.put_bytes("datasets/dst_1/upload", b"second")
        assert store.read_bytes("datasets/dst_1/upload") == b"second"
        assert store.size_bytes("datasets/dst_1/upload") == 6
        with store.local_copy("datasets/dst_1/upload") as path:
            assert path.read_bytes() == b"second"

    def test_a_write_that_fails_leaves_what_was_there(self, store: ArtifactStore) -> None:
        store.put_bytes("one", b"old")
        for key in ("one", "two"):
            with pytest.raises(_ClientLeft):
                _write_half(store, key)
        assert store.read_bytes("one") == b"old"
        assert not store.exists("two")

    def test_nothing_is_seen_before_the_end_of_a_write(self, store: ArtifactStore) -> None:
        with store.writer("slow") as file:
            file.write(b"half")
            assert not store.exists("slow")
        assert store.exists("slow")

    def test_what_is_not_there_is_not_found(self, store: ArtifactStore) -> None:
        with pytest.raises(NotFound, match="no artifact 'gone'"):
            store.read_bytes("gone")
        with pytest.raises(NotFound), store.local_copy("gone"):
            pass
        with pytest.raises(NotFound):
            store.size_bytes("gone")

    def test_deleting_twice_is_harmless(self, store: ArtifactStore) -> None:
        store.put_bytes("a/b/c", b"x")
        store.delete("a/b/c")
        store.delete("a/b/c")
        assert not store.exists("a/b/c")

    @pytest.mark.parametrize(
        "key", ["../secret", "a/../b", "/etc/passwd", "a//b", "", ".hidden", "a/.", "a\\b", "a\0b"]
    )
    def test_a_key_never_leaves_the_store(self, store: ArtifactStore, key: str) -> None:
        with pytest.raises(ValueError, match="is not the key of an artifact"):
            store.put_bytes(key, b"x")


class TestFolder:
    def test_only_its_owner_may_look_inside(self, tmp_path: Path) -> None:
        store = ArtifactStore(f"file://{tmp_path / 'artifacts'}")
        store.put_bytes("datasets/one", b"x")
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in (tmp_path / "artifacts", *(tmp_path / "artifacts").rglob("*"))
        }
        assert modes == {"artifacts": 0o700, "datasets": 0o700, "one": 0o600}

    def test_a_failed_write_leaves_no_file_behind(self, tmp_path: Path) -> None:
        store = ArtifactStore(f"file://{tmp_path}")
        with pytest.raises(_ClientLeft):
            _write_half(store, "one")
        assert list(tmp_path.iterdir()) == []

    def test_the_folders_of_deleted_artifacts_go_too(self, tmp_path: Path) -> None:
        store = ArtifactStore(f"file://{tmp_path}")
        store.put_bytes("a/b/one", b"x")
        store.put_bytes("a/two", b"x")
        store.delete("a/b/one")
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "two"]

    def test_a_reader_sees_the_old_or_the_new(self, tmp_path: Path) -> None:
        """Given a writer that replaces an artifact again and again, no reader ever sees a half."""
        store = ArtifactStore(f"file://{tmp_path}")
        contents = [bytes([number]) * 300_000 for number in range(20)]
        store.put_bytes("one", contents[0])
        over, seen = threading.Event(), set()

        def read() -> None:
            while not over.is_set():
                seen.add(store.read_bytes("one"))

        reader = threading.Thread(target=read)
        reader.start()
        for content in contents:
            store.put_bytes("one", content)
        over.set()
        reader.join()
        assert seen <= set(contents)

    def test_a_store_that_is_away_is_said_so(self, tmp_path: Path) -> None:
        store = ArtifactStore(f"file://{tmp_path}")
        (tmp_path / "blocked").write_bytes(b"a file where a folder should be")
        with pytest.raises(Unavailable, match="the artifact store does not answer") as caught:
            store.put_bytes("blocked/one", b"")
        assert caught.value.code == "artifacts_away"

    def test_a_full_disk_is_said_and_loses_nothing(self, tmp_path: Path) -> None:
        """On a disk of 64 kB, in a mount namespace of its own."""
        small = tmp_path / "small"
        done = run_on_small_disk(small, "64k", _FULL_DISK, f"file://{small}")
        assert done.stdout.split() == ["storage_full", "storage_full", "False", "True"]


class TestTidying:
    def test_all_under_a_folder_goes_but_what_is_kept(self, store: ArtifactStore) -> None:
        for key in ("checkpoints/exp_1/tri_1/1-10", "checkpoints/exp_1/tri_1/2-20", "checkpoints/exp_1/tri_2/1-5"):
            store.put_bytes(key, b"state")
        store.put_bytes("checkpoints/exp_10/tri_9/1-1", b"state")
        assert store.delete_all_but("checkpoints/exp_1", {"checkpoints/exp_1/tri_1/2-20"}) == 2
        assert store.exists("checkpoints/exp_1/tri_1/2-20")
        assert not store.exists("checkpoints/exp_1/tri_1/1-10")
        assert store.exists("checkpoints/exp_10/tri_9/1-1")
        assert store.delete_all_but("checkpoints/exp_1", {"checkpoints/exp_1/tri_1/2-20"}) == 0

    def test_a_folder_that_is_not_there_holds_nothing(self, store: ArtifactStore) -> None:
        assert store.delete_all_but("checkpoints/exp_1", ()) == 0

    def test_what_a_killed_writer_left_goes_too(self, tmp_path: Path) -> None:
        store = ArtifactStore(f"file://{tmp_path}")
        store.put_bytes("checkpoints/exp_1/tri_1/1-10", b"state")
        half = tmp_path / "checkpoints/exp_1/tri_1/.1-20.abc123"
        half.write_bytes(b"half")
        assert store.delete_all_but("checkpoints/exp_1", ["checkpoints/exp_1/tri_1/1-10"]) == 1
        assert not half.exists()
        store.delete_all_but("checkpoints/exp_1", ())
        assert not (tmp_path / "checkpoints").exists()
