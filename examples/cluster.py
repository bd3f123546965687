"""Enlarge a folder on a cluster: Dask's scheduler hands out the files, each worker has one net.

    python examples/cluster.py holiday holiday_x3                                  # this machine
    python examples/cluster.py /shared/holiday /shared/x3 --scheduler tcp://first:8786

A worker that dies costs nothing but the file it had, and that is tried again on another one. A
second start does what is not there yet. On a cluster all workers need srcli, and the folders under
the same paths: ``dask scheduler`` on one machine, ``dask worker tcp://first:8786 --nthreads 1`` on
each.
"""

import argparse
import os
from functools import cache
from pathlib import Path

import dask
from distributed import Client, LocalCluster, as_completed

from srcli import Settings, SrcliError, Upscaler

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic"}


@cache
def net(model: str) -> Upscaler:
    """Load the weights once a worker; it computes on its own device."""
    return Upscaler(model, settings=Settings(device="auto"))


def enlarge(source: str, target: str, model: str, scale: float) -> None:
    """Enlarge a file into another one, whole or not at all."""
    larger = net(model)(source, scale)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    unfinished = f"{target}.{os.getpid()}.part"
    kept = {
        name: larger.info[name] for name in ("icc_profile", "exif", "dpi") if name in larger.info
    }
    larger.save(unfinished, "PNG", **kept)
    Path(unfinished).replace(target)


def main() -> int:
    """Enlarge what is not there yet; a line for each file that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scale", type=float, default=3)
    parser.add_argument("--model", default="base")
    parser.add_argument("--scheduler", help="address of a scheduler; without: workers here")
    parser.add_argument("--workers", type=int, default=1, help="here; each uses its share of cores")
    options = parser.parse_args()
    # A worker holds the file that it works on and no other.
    dask.config.set({"distributed.scheduler.worker-saturation": 1.0})
    if options.scheduler:
        cluster = None
        client = Client(options.scheduler)
    else:
        cluster = LocalCluster(options.workers, threads_per_worker=1, dashboard_address=None)
        client = Client(cluster)
    tasks = {}
    for source in sorted(options.folder.rglob("*")):
        ending = "" if source.suffix.lower() == ".png" else ".png"  # a.jpg stands beside a.png
        target = options.output / f"{source.relative_to(options.folder)}{ending}"
        if source.suffix.lower() in SUFFIXES and not target.exists():
            names = str(source.absolute()), str(target.absolute())
            future = client.submit(enlarge, *names, options.model, options.scale, pure=False)
            tasks[future] = source
    failed = 0
    for future in as_completed(tasks):
        error = future.exception()
        known = isinstance(error, SrcliError)  # its line names the file
        print(error if known else f"{tasks[future]}: {error or 'done'}", flush=True)
        failed += error is not None
        future.release()
    client.close()
    if cluster is not None:
        cluster.close()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
