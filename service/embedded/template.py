"""What a start on an empty folder would make, made ahead: a cluster with this code's schema and the built-in data sets.

initdb, the migrations and the data sets take some seconds of processor time, of which such a start has none to spare:
the Python processes import meanwhile. `python -m service.embedded` makes the template, `make install` calls it. It lies
beside the installed packages, in a folder named after the Postgres binaries and the migrations that made it, so
another version never meets it; and where there is none, everything is made from nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import migrations
from service.embedded.layout import Layout

_FOLDER = Path(sys.prefix) / "share" / "foretune"
_MIGRATIONS = Path(migrations.__file__).parent / "versions"


def place(binaries: Path) -> Path:
    """Where the template of these Postgres binaries and this code's schema lies, if it was made."""
    digest = hashlib.sha256(f"{binaries} {(binaries / 'postgres').stat().st_mtime_ns}".encode())
    for revision in sorted(_MIGRATIONS.glob("*.py")):
        digest.update(revision.name.encode() + b"\0" + revision.read_bytes())
    return _FOLDER / f"template-{digest.hexdigest()[:16]}"


def copy_to(cluster: Path, artifacts: Path, binaries: Path) -> bool:
    """Copies the template into the empty folder `cluster` and into `artifacts`; False where there is none of our own.

    The artifacts are on the disk then, the cluster need not be. Raises CalledProcessError with what `cp` says: for a
    thousand files it takes a quarter of the time of `shutil`.
    """
    template = Layout(place(binaries))
    # Postgres serves nobody's files but its own user's.
    if not template.root.is_dir() or template.root.stat().st_uid != os.geteuid():
        return False
    for source, target in ((template.artifacts, artifacts), (template.postgres, cluster)):
        command = ["cp", "-Rp", f"{source}/.", str(target)]
        subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    for copied in (artifacts, *artifacts.rglob("*")):
        sync(copied)
    return True


def sync(path: Path) -> None:
    """Has a file's content, or a folder's names, on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make() -> Path | None:
    """Makes the template unless it is there; None where it would be of no use, or cannot be written.

    Raises StackError when Postgres does not start, CalledProcessError when the data sets cannot be published.
    """
    from service.embedded import postgres

    template = place(postgres.find_binaries())
    if template.is_dir():
        return template
    try:
        _FOLDER.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".new-", dir=_FOLDER))
    except OSError:
        return None  # installed by somebody else
    try:
        fresh = Layout.of(folder)
        if postgres.locate_cluster(fresh).run_as.kind == "switch":
            return None  # it would be another user's
        _fill(fresh)
        for part in folder.iterdir():
            if part not in (fresh.postgres, fresh.artifacts):
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        for old in _FOLDER.glob("template-*"):
            shutil.rmtree(old, ignore_errors=True)
        with suppress(OSError):  # two at once: the first one's is as good
            folder.rename(template)
        return template
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(layout: Layout) -> None:
    """A data folder with the schema and the built-in data sets, whose servers have ended."""
    from service.db import migrate
    from service.embedded.servers import embedded_servers

    with embedded_servers(layout.root) as servers:
        migrate.upgrade(servers.database_url)
        urls = {"DATABASE_URL": servers.database_url, "REDIS_URL": servers.redis_url}
        environment = {**os.environ, **urls, "ARTIFACTS_URL": f"file://{layout.artifacts}"}
        # Workers know the data sets; they are a part of their own, without which a stack starts as well.
        subprocess.run([sys.executable, "-m", "workers.parsing"], check=True, env=environment, cwd=layout.run)
