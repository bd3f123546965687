"""Damage image files in every way that comes to mind, and enlarge them all in one run.

    python benchmarks/fuzz.py CORPUS [--count N] [--seed S] [--report FILE]

First every file below CORPUS is enlarged as it is, whatever its suffix; then ``N`` damaged
variants of those that can be read and have up to a megapixel: cut off, bits and bytes changed,
halves spliced, stretches zeroed, sizes made absurd, rubbish appended, suffixes swapped. They go
through ``srcli.upscaling.batch.run`` by two, with a tiny random net, in a watched process: what
keeps it busy for more than 20 seconds, ends it, or is called unexpected is a bug.

Pillow's own test images make a good corpus: its source distribution has them in Tests/images.
"""

import argparse
import json
import os
import platform
import random
import re
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import PIL
import pyvips  # type: ignore[import-untyped]
import torch
from torch import nn

from srcli.errors import ImageError
from srcli.files import TEMPORARY_SUFFIX
from srcli.imaging import images
from srcli.model import weights
from srcli.model.config import ModelConfig
from srcli.model.network import ResidualAutoencoder
from srcli.upscaler import Settings
from srcli.upscaling import batch
from srcli.upscaling.config import BatchConfig, Job

PATIENCE: Final = 20.0
"""Seconds after which a damaged file counts as a hang."""

MORE_PATIENCE: Final = 120.0
"""The same for an intact file, which may have many megapixels, and for the start."""

MOST_PIXELS: Final = 10**6
MOST_BYTES: Final = 500_000
"""What the files that are damaged have at most."""

TARGETS: Final = ("png", "jpg", "webp", "tif", "gif", "bmp", "avif", "ppm")


def main() -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="where the tables go as well")
    parser.add_argument("--keep", type=Path, help="where the damaged files and results stay")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        enlarge_all(options.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        sound = sorted(path for path in options.corpus.rglob("*") if path.is_file())
        lines = head(options)
        lines += section("Intact files", sound, folder / "intact", MORE_PATIENCE)
        damaged = variants(sound, options.count, options.seed, folder / "damaged")
        if damaged:
            lines += section("Damaged files", damaged, folder / "hurt", PATIENCE)
    text = "\n".join([*lines, ""])
    print(text)
    if options.report:
        options.report.write_text(text, encoding="utf-8")


def head(options: argparse.Namespace) -> list[str]:
    """Say what was run on what."""
    return [
        (
            f"`python benchmarks/fuzz.py {options.corpus} --count {options.count} "
            f"--seed {options.seed}`"
        ),
        "",
        (
            f"Python {platform.python_version()}, Pillow {PIL.__version__}, libvips "
            f"{'.'.join(str(pyvips.version(part)) for part in range(3))}, torch "
            f"{torch.__version__}, {os.cpu_count()} CPUs"
        ),
    ]


# ---- damage -------------------------------------------------------------------------------

Damage = Callable[[bytes, bytes, random.Random], bytes]
"""Makes a damaged file of one file, and if need be of another one."""


def cut_off(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Leave out the end."""
    return data[: chance.randrange(len(data))]


def flip_bits(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Flip a few bits anywhere."""
    changed = bytearray(data)
    for _bit in range(chance.choice((1, 4, 64))):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def garble_head(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Replace a few bytes near the beginning, where the headers are."""
    changed = bytearray(data)
    for _byte in range(chance.choice((1, 2, 8))):
        changed[chance.randrange(min(len(data), 512))] = chance.choice((0, 1, 127, 255))
    return bytes(changed)


def splice(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Continue with the end of another file."""
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def blank(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Zero a stretch, as a disk does that has lost a sector."""
    start = chance.randrange(len(data))
    length = min(chance.choice((4, 64, 512, 4096)), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def lose(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Leave out a stretch in the middle."""
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.choice((1, 7, 512)) :]


def append(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Put rubbish behind the end."""
    return data + chance.randbytes(chance.choice((1, 100, 10_000)))


def exaggerate(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Make a number in the header absurd: where sizes, counts and offsets stand."""
    layout = chance.choice(("<H", ">H", "<I", ">I"))
    number = chance.choice((0, 1, 30_000, 65_535, 100_000, 2**31 - 1, 2**31, 2**32 - 1))
    packed = struct.pack(layout, number % 256 ** struct.calcsize(layout))
    start = chance.randrange(min(len(data), 200))
    return data[:start] + packed + data[start + len(packed) :]


def leave(data: bytes, _: bytes, __: random.Random) -> bytes:
    """Change nothing: what is wrong is the suffix."""
    return data


DAMAGES: Final[tuple[Damage, ...]] = (
    *(cut_off, cut_off, flip_bits, flip_bits, garble_head, garble_head, exaggerate, exaggerate),
    *(splice, blank, lose, append, leave),
)
"""The ways, the likelier ones twice."""


def variants(sound: list[Path], count: int, seed: int, folder: Path) -> list[Path]:
    """Write damaged files, each named after its number, its damage and what it was."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    folder.mkdir(parents=True, exist_ok=True)
    usable, made = [path for path in sound if is_usable(path)], []
    for number in range(count):
        source, damage = chance.choice(usable), chance.choice(DAMAGES)
        other = chance.choice(usable)
        data = damage(source.read_bytes(), other.read_bytes(), chance)
        suffix = other.suffix if damage is leave else source.suffix
        name = damage.__name__.replace("_", "-")
        path = folder / f"{number:05d}-{name}-{source.stem[:40]}{suffix}"
        path.write_bytes(data)
        made.append(path)
    return made


def is_usable(path: Path) -> bool:
    """Whether a file is an image, and small enough to be enlarged thousands of times."""
    if not 0 < path.stat().st_size <= MOST_BYTES:
        return False
    try:
        header = images.read_header(path)
    except ImageError:
        return False
    return header.width * header.height * header.frames <= MOST_PIXELS


# ---- the watched process ------------------------------------------------------------------


def enlarge_all(folder: Path) -> None:
    """Enlarge the files of a list in a folder, a line of JSON for each."""
    torch.set_num_threads(1)
    paths = [Path(line) for line in json.loads((folder / "list.json").read_bytes())]
    jobs = [
        Job(path, folder / "out" / f"{path.stem}-{number}.{target_of(number)}", path.name)
        for number, path in paths_from(paths, folder)
    ]
    config = BatchConfig(
        inputs=("fuzz",),
        scale=2.0,
        existing="overwrite",
        model=str(folder / "tiny.safetensors"),
        settings=Settings(device="cpu", dtype="fp32"),
    )
    print("{}", flush=True)
    for result in batch.run(config, jobs):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fields = {"status": result.status, "message": result.message, "notes": result.notes}
        print(json.dumps({**fields, "peak": peak, "source": str(result.job.source)}), flush=True)


def paths_from(paths: list[Path], folder: Path) -> Iterator[tuple[int, Path]]:
    """Number the files, and begin where the process before this one has ended."""
    begun = int((folder / "begun").read_text())
    yield from list(enumerate(paths))[begun:]


def target_of(number: int) -> str:
    """Choose a format for a result: half are PNG, the other ones take turns."""
    return TARGETS[number // 2 % len(TARGETS)] if number % 2 else "png"


@dataclass(slots=True)
class Watch:
    """What became of the files of a list."""

    patience: float
    """Seconds after which a file counts as a hang."""

    results: list[dict[str, object]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def take(self, process: subprocess.Popen[bytes]) -> str:
        """Gather results until the process ends; say how if it was not well."""
        assert process.stdout is not None
        begun, ready = time.monotonic(), False
        while True:
            patience = self.patience if ready else MORE_PATIENCE
            if not select.select([process.stdout], [], [], patience)[0]:
                process.kill()
                return f"hang: no result after {patience:.0f} seconds"
            line = process.stdout.readline()
            if not line:
                return f"crash: exit status {process.wait()}" if process.wait() else ""
            if ready:
                self.results.append(json.loads(line))
                self.seconds.append(time.monotonic() - begun)
            begun, ready = time.monotonic(), True


def watched(paths: list[Path], folder: Path, patience: float) -> Watch:
    """Enlarge files in a process that is begun again behind a file that ended it."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    (folder / "list.json").write_text(json.dumps([str(path) for path in paths]))
    save_tiny_net(folder / "tiny.safetensors")
    watch = Watch(patience)
    while len(watch.results) < len(paths):
        (folder / "begun").write_text(str(len(watch.results)))
        command = [sys.executable, __file__, "none", "--child", str(folder)]
        with (
            (folder / "stderr").open("wb+", buffering=0) as errors,
            # Unbuffered: select must not miss lines that are waiting in a buffer.
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, bufsize=0) as process,
        ):
            end = watch.take(process)
            errors.seek(0)
            watch.complaints += errors.read().decode(errors="replace").splitlines()
        if end and len(watch.results) < len(paths):
            source = str(paths[len(watch.results)])
            watch.results.append({"status": "bug", "message": f"{source}: {end}", "source": source})
            watch.seconds.append(patience)
    return watch


def save_tiny_net(path: Path) -> None:
    """Write the weights of a small random net."""
    torch.manual_seed(7)
    config = ModelConfig(
        stem=3,
        widths=(8, 12),
        encoder=(1,),
        bottom=1,
        decoder=(1,),
        join="before",
    )
    net = ResidualAutoencoder(config)
    nn.init.normal_(net.head.weight, std=0.02)
    weights.save(path, net.state_dict(), config, {"scales": [2]})


# ---- the report ---------------------------------------------------------------------------


def section(title: str, paths: list[Path], folder: Path, patience: float) -> list[str]:
    """Enlarge files and report what became of them."""
    begun = time.monotonic()
    watch = watched(paths, folder, patience)
    (folder / "results.json").write_text(json.dumps([watch.results, watch.seconds], indent=0))
    (folder / "complaints").write_text("\n".join(watch.complaints))
    statuses = Counter(str(result["status"]) for result in watch.results)
    kinds = Counter(kind_of(result) for result in watch.results if result["status"] != "done")
    slowest = max(range(len(paths)), key=watch.seconds.__getitem__)
    left = sum(1 for _ in folder.rglob(f"*{TEMPORARY_SUFFIX}"))
    return [
        "",
        f"## {title}",
        "",
        (
            f"{len(paths)} files in {time.monotonic() - begun:.0f} s: {statuses['done']} done, "
            f"{statuses['failed']} failed, {statuses['bug']} hung or crashed; "
            f"{sum(map(is_bug, watch.results))} bugs. Temporary files left: {left}."
        ),
        "",
        (
            f"Longest wait for a result: {watch.seconds[slowest]:.1f} s ({paths[slowest].name}). "
            f"Peak RSS after 10 %, 50 % and 100 %: {peaks(watch)}. Lines of C libraries on "
            f"stderr: {len(watch.complaints)}."
        ),
        "",
        "| failed for | files |",
        "|---|---|",
        *(f"| {kind} | {count} |" for kind, count in kinds.most_common()),
        *(f"\nBUG: {result['message']}" for result in watch.results if is_bug(result)),
        *(f"\nstderr: {line}" for line, _ in Counter(watch.complaints).most_common(5)),
    ]


def kind_of(result: dict[str, object]) -> str:
    """Reduce a message to what it says of many files."""
    message = str(result["message"]).removeprefix(f"{result['source']}: ")
    message = re.sub(r"\([^()]*\)+", "(...)", message.partition(";")[0])
    return re.sub(r"\d+", "N", re.sub(r"'[^']*'", "'...'", message)).replace("|", "/")


def is_bug(result: dict[str, object]) -> bool:
    """Whether something happened to a file that nothing should be able to cause."""
    message = str(result["message"])
    return result["status"] == "bug" or "unexpected " in kind_of(result) or "\n" in message


def peaks(watch: Watch) -> str:
    """Return the peak of memory along the way."""
    shares = (0.1, 0.5, 1.0)
    found = [watch.results[max(0, int(len(watch.results) * share) - 1)] for share in shares]
    return ", ".join(f"{int(str(each.get('peak', 0))) >> 10}" for each in found) + " MiB"


if __name__ == "__main__":
    main()
