"""Time a folder of small JPEGs against the net alone; its memory over 2,000 files; plans of 20,000.

    python benchmarks/folder.py

The same pictures go through the net alone, out of memory, with nothing else to do; then the whole
folder goes through ``srcli upscale``'s own loop, which decodes and encodes beside the net. All in
one run, by turns; the medians are in benchmarks/results/folder.md. Small photographs are cut from
the example originals.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srcli.imaging import images
from srcli.ops.spans import output_length
from srcli.upscaler import Upscaler
from srcli.upscaling import batch
from srcli.upscaling.config import BatchConfig
from srcli.upscaling.plan import plan

ORIGINALS = Path(__file__).parents[1] / "examples" / "originals"
SCALE = 3.0


class TimedUpscaler(Upscaler):
    """An upscaler that adds up the seconds in its net."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.spent = 0.0
        self._runner.run = self._timed(self._runner.run)  # type: ignore[assignment,method-assign]

    def _timed(self, run: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
        def timed(windows: Tensor, scale: float) -> Tensor:
            begun = time.perf_counter()
            result = run(windows, scale)
            self.spent += time.perf_counter() - begun
            return result

        return timed


def make_photos(folder: Path, count: int, largest: int) -> None:
    """Cut ``count`` JPEGs of quality 90 out of the originals, 80 to ``largest`` pixels a side."""
    random = np.random.default_rng(0)
    originals = [Image.open(path).convert("RGB") for path in sorted(ORIGINALS.glob("*.png"))]
    for number in range(count):
        original = originals[number % len(originals)]
        width, height = (
            int(random.integers(min(80, largest // 2), min(largest, side)))
            for side in original.size
        )
        left = int(random.integers(0, original.width - width + 1))
        top = int(random.integers(0, original.height - height + 1))
        part = original.crop((left, top, left + width, top + height))
        part.save(folder / f"{number:05}.jpg", quality=90)


def net_alone(upscaler: TimedUpscaler, pictures: list[images.Picture]) -> float:
    """Enlarge pictures that are in memory and throw the rows away: seconds in the net."""
    upscaler.spent = 0.0
    for picture in pictures:
        size = output_length(picture.height, SCALE), output_length(picture.width, SCALE)
        for _ in upscaler.enlarge(torch.from_numpy(picture.pixels).permute(2, 0, 1), size):
            pass
    return upscaler.spent


def whole_folder(folder: Path, output: Path, jobs: int, on_done: Callable[[], None]) -> float:
    """Run the loop of ``srcli upscale`` over a folder, the net loaded before: seconds."""
    config = BatchConfig(
        inputs=(str(folder),), output=output, scale=SCALE, existing="overwrite", jobs=jobs
    )
    begun = 0.0

    def ready(_name: str, _upscaler: Upscaler) -> None:
        nonlocal begun
        begun = time.perf_counter()

    for result in batch.run(config, plan(config), on_ready=ready):
        assert result.status == "done", result.message
        on_done()
    return time.perf_counter() - begun


def resident() -> float:
    """Memory of this process, MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def throughput(count: int, repeats: int) -> list[str]:
    """Compare by turns: lines of Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder, output = Path(name, "photos"), Path(name, "out")
        folder.mkdir()
        make_photos(folder, count, largest=480)
        upscaler = TimedUpscaler("base")
        pictures = [images.read(path) for path in sorted(folder.iterdir())]
        megapixels = sum(p.width * p.height for p in pictures) * SCALE**2 / 1e6
        net_alone(upscaler, pictures)  # every shape once, before anything counts
        alone, folders = [], {1: list[float](), 2: list[float](), 4: list[float]()}
        for _ in range(repeats):
            alone.append(net_alone(upscaler, pictures))
            for jobs, seconds in folders.items():
                seconds.append(whole_folder(folder, output, jobs, lambda: None))
    base = statistics.median(alone)
    lines = [
        (
            f"{count} JPEGs of 80 to 480 pixels a side, together {megapixels:.1f} output "
            f"megapixels, {upscaler.dtype} on {torch.get_num_threads()} threads, medians of "
            f"{repeats}:"
        ),
        "",
        "| | seconds | s/MP | share of the net's own time |",
        "|---|---|---|---|",
        f"| the net alone | {base:.2f} | {base / megapixels:.3f} | 1.00 |",
    ]
    for jobs, seconds in folders.items():
        whole = statistics.median(seconds)
        lines.append(
            f"| the folder, `--jobs {jobs}` | {whole:.2f} | {whole / megapixels:.3f} "
            f"| {whole / base:.3f} |"
        )
    return lines


def memory(count: int) -> list[str]:
    """Watch the memory over many small files: lines of Markdown."""
    seen = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "photos")
        folder.mkdir()
        make_photos(folder, count, largest=120)
        whole_folder(folder, Path(name, "out"), 2, lambda: seen.append(resident()))
    shares = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    at = {share: seen[max(0, int(count * share) - 1)] for share in shares}
    return [
        f"Resident memory of one process over {count} JPEGs, highest {max(seen):.0f} MB:",
        "",
        "| files done | " + " | ".join(f"{int(count * share)}" for share in shares) + " |",
        "|---" * (len(shares) + 1) + "|",
        "| MB | " + " | ".join(f"{at[share]:.0f}" for share in shares) + " |",
    ]


PLANNED = {
    "`.jpg`": (".jpg", ".jpg"),
    "`.jpg`, as many `.xmp`": (".jpg", ".xmp"),
    "JPEGs called `.HEIC`": (".HEIC", ".HEIC"),
    "`.jpg`, as many results beside them": (".jpg", "_x2.jpg"),
}
"""Folders that are planned, by the endings of their files by turns."""


def planning(count: int, repeats: int) -> list[str]:
    """Find the pictures of a folder and name their results: lines of Markdown."""
    lines = [
        f"Processor seconds to plan a folder of {count} files, the best of {repeats}:",
        "",
        "| files | pictures | seconds |",
        "|---|---|---|",
    ]
    for what, endings in PLANNED.items():
        with tempfile.TemporaryDirectory() as name:
            make_photos(Path(name), 1, largest=120)
            data = Path(name, "00000.jpg").read_bytes()
            for number in range(count):
                stem, ending = f"{number - number % 2:05}", endings[number % 2]
                if endings[0] == endings[1]:
                    stem = f"{number:05}"
                path = Path(name, f"{stem}{ending}")
                path.write_bytes(b"<x:xmpmeta/>" if ending == ".xmp" else data)
            seconds = []
            for _ in range(repeats):
                begun = time.process_time()
                jobs = plan(BatchConfig(inputs=(name,), output=Path(name, "out")))
                seconds.append(time.process_time() - begun)
        lines.append(f"| {what} | {len(jobs)} | {min(seconds):.2f} |")
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100, help="of the timed folder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-files", type=int, default=2000)
    parser.add_argument("--planned-files", type=int, default=20_000)
    options = parser.parse_args()
    print("\n".join(throughput(options.files, options.repeats)), end="\n\n")
    print("\n".join(memory(options.memory_files)), end="\n\n")
    print("\n".join(planning(options.planned_files, options.repeats)))


if __name__ == "__main__":
    main()
