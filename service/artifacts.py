"""Where data sets, checkpoints and models lie: a folder, or any fsspec address such as `s3://bucket/prefix`.

Callers name artifacts by key (`datasets/dst_1/upload`), never by path. A key appears whole or not at all: local files
are written beside their place and renamed, what goes to an object store is complete before its upload begins.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import fsspec.core

from foretune.errors import NotFound, StorageFull, Unavailable

_KEY = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]*(/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCAL = ("file", "local")


class Writer(Protocol):
    """What `ArtifactStore.writer` gives."""

    def write(self, data: bytes, /) -> int: ...


class ArtifactStore:
    """One address. Its methods block; they raise StorageFull when the disk is full, Unavailable when the store is away.

    A local folder is made with mode 0700 when it is missing.
    """

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._folder = local_folder(url)
        if self._folder is not None and not self._folder.is_dir():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def writer(self, key: str) -> Iterator[Writer]:
        """A file to write to; it appears under `key` when the block ends well, and leaves nothing when it raises."""
        with _translated(key):
            if self._folder is not None:
                with _local_writer(self._folder / _checked(key)) as file:
                    yield file
                return
            # Not every store can take back an upload that has begun: it begins when there is nothing left to go wrong.
            with tempfile.TemporaryDirectory(prefix="foretune-") as folder:
                staged = Path(folder) / "artifact"
                with staged.open("wb") as file:
                    yield file
                self._fs.put_file(str(staged), self._path(key))

    def put_bytes(self, key: str, data: bytes) -> None:
        """Writes `data` under `key`, replacing what is there at once."""
        with self.writer(key) as file:
            file.write(data)

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """The artifact for reading. Raises NotFound."""
        with _translated(key), self._fs.open(self._path(key), "rb") as file:
            yield file

    def read_bytes(self, key: str) -> bytes:
        """The whole artifact. Raises NotFound."""
        with self.open(key) as file:
            return file.read()

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """A local file with the artifact's content, for libraries that want a path. Do not write to it.

        Raises NotFound.
        """
        if self._folder is not None:
            path = self._folder / _checked(key)
            if not path.is_file():
                raise _missing(key)
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="foretune-") as folder:
            path = Path(folder) / "artifact"
            with self.open(key) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            yield path

    def size_bytes(self, key: str) -> int:
        """Raises NotFound."""
        with _translated(key):
            return int(self._fs.size(self._path(key)))

    def exists(self, key: str) -> bool:
        with _translated(key):
            return bool(self._fs.exists(self._path(key)))

    def delete(self, key: str) -> None:
        """Deletes the artifact; nothing happens when there is none."""
        with _translated(key):
            try:
                self._fs.rm_file(self._path(key))
            except FileNotFoundError:
                return
            if self._folder is not None:
                _remove_empty(self._folder, (self._folder / key).parent)

    def delete_all_but(self, folder: str, kept: Collection[str]) -> int:
        """Deletes what lies under the key `folder`, also what was written half, except the keys in `kept`.

        The number of artifacts that were deleted.
        """
        with _translated(folder):
            root = self._path(folder)
            if not self._fs.isdir(root):
                return 0
            keys = {str(path): f"{folder}{str(path).removeprefix(root)}" for path in self._fs.find(root)}
            doomed = [path for path, key in keys.items() if key not in kept]
            for path in doomed:
                with suppress(FileNotFoundError):
                    self._fs.rm_file(path)
                if self._folder is not None:
                    _remove_empty(self._folder, Path(path).parent)
        return len(doomed)

    def _path(self, key: str) -> str:
        return f"{self._root}/{_checked(key)}"


def local_folder(url: str) -> Path | None:
    """The folder that an address means; None where it means another kind of store."""
    fs, root = fsspec.core.url_to_fs(url)
    return Path(str(root).rstrip("/")) if _is_local(fs.protocol) else None


@contextmanager
def _local_writer(target: Path) -> Iterator[BinaryIO]:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb", buffering=1 << 18) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _missing(key) from error
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull from error
        raise Unavailable(f"the artifact store does not answer: {error}", code="artifacts_away") from error


def _missing(key: str) -> NotFound:
    return NotFound(f"there is no artifact {key!r}", code="no_artifact")


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not the key of an artifact: letters, digits, . _ = - between slashes")
    return key


def _is_local(protocol: str | tuple[str, ...]) -> bool:
    names = (protocol,) if isinstance(protocol, str) else protocol
    return any(name in _LOCAL for name in names)


def _remove_empty(root: Path, folder: Path) -> None:
    """Removes the folders between `root` and `folder` that hold nothing any more."""
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
