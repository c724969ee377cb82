"""The artifact store: a key appears whole or not at all, in a folder or in an object store."""

from __future__ import annotations

import errno
import os
import stat
import threading
import uuid
from pathlib import Path

import fsspec
import pytest

from foretune.errors import NotFound, StorageFull, Unavailable
from service.artifacts import ArtifactStore


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """A folder, and an object store: what differs is fsspec's."""
    if request.param == "file":
        return ArtifactStore(f"file://{tmp_path / 'artifacts'}")
    return ArtifactStore(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path: Path) -> tuple[ArtifactStore, Path]:
    return ArtifactStore(f"file://{tmp_path / 'artifacts'}"), tmp_path / "artifacts"


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


class TestEvery:
    def test_what_is_put_can_be_read(self, store: ArtifactStore) -> None:
        store.put_bytes("datasets/dst_1/upload", b"content")
        assert store.read_bytes("datasets/dst_1/upload") == b"content"
        assert store.size_bytes("datasets/dst_1/upload") == 7
        assert store.exists("datasets/dst_1/upload")
        assert not store.exists("datasets/dst_1/other")

    def test_a_new_content_replaces_the_old_one(self, store: ArtifactStore) -> None:
        store.put_bytes("a", b"long content")
        store.put_bytes("a", b"short")
        assert store.read_bytes("a") == b"short"

    def test_libraries_get_a_file(self, store: ArtifactStore) -> None:
        pieces = [os.urandom(1_000_000) for _ in range(3)]
        with store.writer("checkpoints/a-1.safetensors") as file:
            for piece in pieces:
                file.write(piece)
        with store.local_copy("checkpoints/a-1.safetensors") as copy:
            assert copy.read_bytes() == b"".join(pieces)

    def test_a_writer_that_fails_leaves_what_was_there(self, store: ArtifactStore) -> None:
        store.put_bytes("a/b", b"old")

        def fail() -> None:
            with store.writer("a/b") as file:
                file.write(b"half of the n")
                raise KeyError("changed my mind")

        with pytest.raises(KeyError):
            fail()
        assert store.read_bytes("a/b") == b"old"

    def test_what_is_missing_says_which(self, store: ArtifactStore) -> None:
        def copy() -> None:
            with store.local_copy("no/such"):
                pass

        for read in (lambda: store.read_bytes("no/such"), lambda: store.size_bytes("no/such"), copy):
            with pytest.raises(NotFound, match="there is no artifact 'no/such'") as caught:
                read()
            assert caught.value.code == "no_artifact"

    def test_deleting_twice_is_harmless(self, store: ArtifactStore) -> None:
        store.put_bytes("a/b/c", b"")
        for _ in range(2):
            store.delete("a/b/c")
            assert not store.exists("a/b/c")

    @pytest.mark.parametrize(
        "key", ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", ".hidden", "a b", "ü", "a\x00b"]
    )
    def test_a_path_is_no_key(self, store: ArtifactStore, key: str) -> None:
        for use in (store.read_bytes, store.delete, lambda key: store.put_bytes(key, b"")):
            with pytest.raises(ValueError, match="is not the key of an artifact"):
                use(key)


class TestFolder:
    def test_nobody_else_may_look(self, folder: tuple[ArtifactStore, Path]) -> None:
        store, path = folder
        store.put_bytes("a/b", b"secret")
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((path / "a" / "b").stat().st_mode) == 0o600

    def test_nothing_is_left_of_a_failure(self, folder: tuple[ArtifactStore, Path]) -> None:
        store, path = folder

        def fail() -> None:
            with store.writer("a/b") as file:
                file.write(b"x" * 10_000_000)
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert files(path) == []

    def test_a_reader_sees_the_old_or_the_new(self, folder: tuple[ArtifactStore, Path]) -> None:
        """Given a writer that replaces an artifact again and again, no reader ever sees a half."""
        store, _ = folder
        contents = [bytes([number]) * 300_000 for number in range(20)]
        store.put_bytes("a", contents[0])
        over = threading.Event()
        seen: set[bytes] = set()

        def read() -> None:
            while not over.is_set():
                seen.add(store.read_bytes("a"))

        reader = threading.Thread(target=read)
        reader.start()
        for content in contents:
            store.put_bytes("a", content)
        over.set()
        reader.join()
        assert seen <= set(contents)

    def test_empty_folders_go_with_the_last_file(self, folder: tuple[ArtifactStore, Path]) -> None:
        store, path = folder
        for key in ("a/b/one", "a/two"):
            store.put_bytes(key, b"")
        store.delete("a/b/one")
        assert not (path / "a" / "b").exists()
        store.delete("a/two")
        assert path.is_dir()
        assert list(path.iterdir()) == []

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk_is_said_so(self, folder: tuple[ArtifactStore, Path], number: int) -> None:
        store, path = folder
        store.put_bytes("a", b"old")

        def fill() -> None:
            with store.writer("a"):
                raise OSError(number, "full")

        with pytest.raises(StorageFull, match="Free some space"):
            fill()
        assert files(path) == ["a"]
        assert store.read_bytes("a") == b"old"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
    def test_a_device_that_is_really_full(self, folder: tuple[ArtifactStore, Path]) -> None:
        store, path = folder
        (path / "full").symlink_to("/dev/full")

        def fill() -> None:
            with store.writer("other") as _, Path("/dev/full").open("wb", buffering=0) as full:
                full.write(b"x")

        with pytest.raises(StorageFull):
            fill()
        assert files(path) in ([], ["full"])

    def test_a_store_that_is_away_is_said_so(self, folder: tuple[ArtifactStore, Path]) -> None:
        store, path = folder
        (path / "blocked").write_bytes(b"a file where a folder should be")
        with pytest.raises(Unavailable, match="the artifact store does not answer") as caught:
            store.put_bytes("blocked/a", b"")
        assert caught.value.code == "artifacts_away"


def test_an_object_store_publishes_when_it_is_complete() -> None:
    root = uuid.uuid4().hex
    store = ArtifactStore(f"memory://{root}")
    with store.writer("a/b") as file:
        file.write(b"half")
        assert not store.exists("a/b")
    assert fsspec.filesystem("memory").cat(f"/{root}/a/b") == b"half"
