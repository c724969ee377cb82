"""`make history`: runs the starter history's jobs that are missing, one file a job, and packs what there is.

python -m workers.starter --folder DIR [--seconds 1800]    # goes on where it was stopped, however it was stopped
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import orjson
import torch

from workers.starter import shelf
from workers.starter.jobs import jobs, run


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(1)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + arguments.seconds
    wanted = jobs()
    for number, job in enumerate(wanted, 1):
        path = folder / f"{job.name}.json"
        if path.exists():
            continue
        if time.monotonic() > deadline:
            break
        began = time.monotonic()
        _write(path, orjson.dumps(run(job)))
        print(f"{number}/{len(wanted)} {job.name}: {time.monotonic() - began:.1f} s", flush=True)  # noqa: T201
    names = [job.name for job in wanted if (folder / f"{job.name}.json").exists()]
    packed = shelf.pack([(folder / f"{name}.json").read_bytes() for name in names])
    _write(arguments.out, packed)
    print(f"{len(names)} of {len(wanted)} jobs, {len(packed) / 2**20:.2f} MiB: {arguments.out}", file=sys.stderr)  # noqa: T201


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, path)  # noqa: PTH105 - atomic


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m workers.starter", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where finished jobs are kept, a file each")
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin no job after so many seconds")
    parser.add_argument("--out", type=Path, default=shelf.PACKED, help="the packed file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
