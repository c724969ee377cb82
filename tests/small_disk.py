"""A disk that is soon full, for a program of its own: in a mount namespace, so that nobody else sees it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run_on_small_disk(folder: Path, size: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python program while the empty `folder` is a disk of `size`; skips the test where nobody may mount."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={size},mode=0700 tmpfs {folder}"
    if subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets nobody mount")
    command = ["unshare", "-Urm", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)
