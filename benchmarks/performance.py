"""Time the net, ``srcli upscale`` from end to end, its start-up and its scaling, beside peers.

    python benchmarks/performance.py [--quick] [--only PART] [--device auto|cpu|cuda] [--peers DIR]

What is compared is measured in one run, by turns, and the medians are reported. The page is
``benchmarks/results/performance.md``, the numbers ``performance.json`` and the curves
``performance.png`` beside it. ``--only`` remakes some parts and leaves the others, each with the
machine that it was measured on. With a GPU the net, the peers and the end-to-end part are
measured on both, the CPU and the GPU. ``--peers`` has files of ncnn: see ``computers.py``.
"""

import argparse
import copy
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from child import watched
from computers import ENGINES, LIMITS, TASKS, Ncnn, Task, capable, limited, per_megapixel
from computers import PEERS as NCNN_PEERS
from numpy.typing import NDArray
from peers import PEERS, build
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import srcli
from srcli.files import replacing
from srcli.imaging import images
from srcli.model import weights
from srcli.model.config import PAPER, ModelConfig
from srcli.model.network import ResidualAutoencoder, multiply_adds, parameter_count
from srcli.ops.color import dequantize, quantize
from srcli.ops.spans import PATCH, plan_axis
from srcli.upscaler import Settings, Upscaler

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CHILD = ROOT / "benchmarks" / "child.py"
ORIGINALS = ROOT / "examples" / "originals"

SCALE = 3
"""Output pixels per input pixel, throughout."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

LAYOUTS = {"default": torch.contiguous_format, "channels-last": torch.channels_last}

TORCH, SMALL = "python, importing torch", "srcli upscale, 100×100 pixels"
"""What the start of a small picture is compared with, and itself."""

Row = dict[str, Any]
"""One measurement as JSON values."""

_Name = TypeVar("_Name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured."""

    rounds: int
    starts: int

    shortest: float
    """Seconds: what takes less is repeated until it has taken that long."""

    longest: float
    """Seconds: what takes more is timed once, without a warm-up. The slowest peers need half a
    minute."""

    matrices: tuple[int, ...]
    """Sides of the matrices whose product is the machine's peak; a GPU has twice as large ones."""

    network: tuple[int, int]
    """Height and width of the output whose first block is timed."""

    photo: tuple[int, int]
    """Height and width of the photo for the peers, input pixels."""

    ends: tuple[tuple[str, tuple[int, int], int], ...]
    """Name, height and width of inputs, and how often ``srcli upscale`` enlarges them."""

    scaling: tuple[float, ...]
    """Output megapixels."""

    often: float
    """Output megapixels up to which a point of the scaling is measured ``rounds`` times."""

    files: int
    """JPEGs of the folder."""

    side: int
    """Of the smallest of them, input pixels; the largest has twice as many."""

    tasks: tuple[Task, ...]
    """Photographs for each kind of processor."""


def rectangle(megapixels: float, factor: float = 1.0) -> tuple[int, int]:
    """Height and width of a 3:2 picture of so many megapixels when enlarged by ``factor``."""
    height = math.sqrt(megapixels * 1e6 / 1.5) / factor
    return max(1, round(height)), max(1, round(1.5 * height))


FULL = Sizes(
    rounds=3,
    starts=5,
    shortest=0.2,
    longest=8.0,
    matrices=(512, 1024, 2048, 4096),
    network=rectangle(12.0),
    photo=(340, 510),
    ends=(
        ("100×100 pixels", (100, 100), 5),
        ("12 megapixels out", rectangle(12.0, SCALE), 3),
        ("100 megapixels out", rectangle(100.0, SCALE), 1),
    ),
    scaling=(1, 4, 16, 64, 256, 400),
    often=16,
    files=20,
    side=160,
    tasks=TASKS,
)

QUICK = Sizes(
    rounds=1,
    starts=1,
    shortest=0.0,
    longest=0.0,
    matrices=(64, 128),
    network=(120, 120),
    photo=(16, 24),
    ends=(("100×100 pixels", (100, 100), 1),),
    scaling=(0.04,),
    often=0,
    files=2,
    side=16,
    tasks=(Task("a tiny picture ×2", (16, 24), 2),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a part is given."""

    sizes: Sizes
    devices: tuple[str, ...]
    """``cpu``, ``cuda`` or both; the last is what ``srcli upscale --device auto`` would take."""

    peers: Path | None = None
    """Where the files of ncnn are."""


# ---- timing -------------------------------------------------------------------------------


def interleaved(
    ways: dict[_Name, Callable[[], object]],
    rounds: int,
    *,
    shortest: float = 0.0,
    longest: float = math.inf,
) -> dict[_Name, float]:
    """Time several ways by turns.

    Args:
        ways: What to time; each is run once before anything counts.
        rounds: Timings of each, of which the median is taken.
        shortest: Seconds of one timing at least: a way is repeated within it.
        longest: Seconds of a first run from which on it is the only one, and counts.

    Returns:
        Seconds of one run.
    """
    first = {name: seconds(way) for name, way in ways.items()}
    found: dict[_Name, list[float]] = {
        name: [took] if took > longest else [] for name, took in first.items()
    }
    for _ in range(rounds):
        for name, way in ways.items():
            if first[name] <= longest:
                count = max(1, math.ceil(shortest / first[name]))
                found[name].append(seconds(way, count))
    return {name: median(times) for name, times in found.items()}


def seconds(way: Callable[[], object], count: int = 1) -> float:
    """Time one of ``count`` runs, until the GPU too has done its part."""
    synchronise()
    begun = time.perf_counter()
    for _ in range(count):
        way()
    synchronise()
    return (time.perf_counter() - begun) / count


def synchronise() -> None:
    """Wait for the GPU, if one is at work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute in so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_counts(device: str) -> tuple[int, ...]:
    """One thread and all of them; for a GPU all."""
    most = torch.get_num_threads()
    return (1, most) if device == "cpu" and most > 1 else (most,)


def dtypes(device: str) -> tuple[str, ...]:
    """The number formats that are worth a look on a device."""
    return ("bf16", "fp32") if device == "cpu" else ("bf16", "fp16", "fp32")


# ---- pictures -----------------------------------------------------------------------------


def photo(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Make a photograph of any size, ``(H, W, 3)``: an original resized, and a little grain.

    Without the grain an enlarged photo has files far smaller than those of a camera.
    """
    with Image.open(ORIGINALS / "houses.png") as original:
        resized = original.convert("RGB").resize((size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = np.array(resized)
    random = np.random.default_rng(0)
    for start in range(0, size[0], 256):  # in bands: the grain of the whole would fill the memory
        band = pixels[start : start + 256]
        grain = 2 * random.standard_normal(band.shape, np.float32)
        np.clip(band + grain + 0.5, 0, 255, out=grain)
        band[...] = grain
    return pixels


def save(pixels: NDArray[np.uint8], path: Path) -> Path:
    """Write an input as other programs do."""
    options: dict[str, Any] = {"quality": 92} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, **options)
    return path


# ---- the network --------------------------------------------------------------------------


class Seen(Exception):  # noqa: N818 - it ends what has done its part
    """The net and the input of a pass that was about to begin."""

    def __init__(self, net: ResidualAutoencoder, image: Tensor) -> None:
        super().__init__()
        self.net, self.image = net, image


def first_pass(upscaler: Upscaler, size: tuple[int, int]) -> tuple[ResidualAutoencoder, Tensor]:
    """Give the net and the windows of the first pass that an enlargement to ``size`` makes.

    To the next smaller size that is a whole multiple of LR's: a pixel more would make x4 an
    intermediate scale.
    """

    def seen(_plain: object, net: ResidualAutoencoder, image: Tensor, _scales: object) -> None:
        raise Seen(net, image.clone())

    source = size[0] // SCALE, size[1] // SCALE
    size = SCALE * source[0], SCALE * source[1]
    levels = np.random.default_rng(0).integers(0, 256, (*source, 3), np.uint8)
    try:
        with watched(seen):
            upscaler.upscale(images.Picture(pixels=levels), size)
    except Seen as found:
        return found.net, found.image
    raise AssertionError("the upscaler has not used its net")


def passing(net: nn.Module, image: Tensor) -> Callable[[], object]:
    """Run a net as the upscaler does."""

    @torch.inference_mode()
    def run() -> object:
        return net(image)

    return run


def products(sides: Sequence[int], dtype: str, device: str) -> dict[str, Callable[[], object]]:
    """Multiply square matrices: the most that a machine computes in a number format.

    On a CPU by torch's own choice of library, and by oneDNN, which computes the convolutions: for
    fp32 torch takes MKL, which on AMD's processors reaches less than half of what oneDNN does.
    """
    ways = {}
    for side in sides if device == "cpu" else (*sides, 2 * sides[-1]):
        left, right = (torch.rand(side, side).to(device, DTYPES[dtype]) for _ in range(2))
        ways[f"{side}"] = multiplying(left, right)
        if device == "cpu" and has_onednn(dtype):
            ways[f"{side}, oneDNN"] = multiplying(left.to_mkldnn(), right.to_mkldnn())
    return ways


def has_onednn(dtype: str) -> bool:
    """Whether oneDNN multiplies in a number format here: bf16 takes AVX-512 or the like."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    small = torch.ones(8, 8, dtype=DTYPES[dtype]).to_mkldnn()
    try:
        multiplying(small, small)()
    except RuntimeError:
        return False
    return True


def multiplying(left: Tensor, right: Tensor) -> Callable[[], object]:
    """Multiply one matrix by another's transpose, as a layer does with its weights."""

    @torch.inference_mode()
    def run() -> object:
        return functional.linear(left, right)

    return run


def kept_pixels(shape: Sequence[int], config: ModelConfig) -> int:
    """Pixels of a batch of windows that are left when their context is cut away."""
    (block,) = plan_axis(
        PATCH,
        patch=PATCH,
        overlap=config.usual_margin,
        stride=config.stride,
    )
    context = len(block.window) - PATCH
    return shape[0] * (shape[2] - context) * (shape[3] - context)


def operations(shape: Sequence[int], config: ModelConfig) -> float:
    """Floating-point operations of the convolutions on a batch of windows, context included."""
    return 2 * multiply_adds(config) * shape[0] * shape[2] * shape[3] / PATCH**2


def measure_network(run: Run) -> list[Row]:
    """The net on blocks and on single patches, beside a matrix product."""
    return [
        row
        for device in run.devices
        for count in thread_counts(device)
        for row in network_rows(run.sizes, device, count)
    ]


def network_rows(sizes: Sizes, device: str, count: int) -> list[Row]:
    """All number formats on one device, by turns."""
    passes = {
        (dtype, kind): first_pass(
            Upscaler("base", settings=Settings(device=device, dtype=dtype, tile=tile)),
            sizes.network,
        )
        for dtype in dtypes(device)
        for kind, tile in (("block", None), ("patch", PATCH))
    }
    ways = {
        (dtype, name): way
        for dtype in dtypes(device)
        for name, way in products(sizes.matrices, dtype, device).items()
    }
    ways |= {name: passing(*one) for name, one in passes.items()}
    with threads(count), like_convolutions(device):
        times = interleaved(ways, sizes.rounds, shortest=sizes.shortest, longest=sizes.longest)
    peaks = {
        dtype: max(rate for (one, _), rate in product_rates(times).items() if one == dtype)
        for dtype in dtypes(device)
    }
    return [
        {"device": device, "threads": count, "dtype": dtype, "kind": kind}
        | network_row(tuple(image.shape), net.config, times[dtype, kind], peaks[dtype])
        for (dtype, kind), (net, image) in passes.items()
    ]


def product_rates(times: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """Operations a second of the matrix products among what was timed."""
    sides = {key: key[1].partition(",")[0] for key in times}
    return {key: 2 * int(side) ** 3 / times[key] for key, side in sides.items() if side.isdecimal()}


@contextmanager
def like_convolutions(device: str) -> Iterator[None]:
    """Let a GPU multiply fp32 matrices in the format that it takes for fp32 convolutions."""
    before = torch.get_float32_matmul_precision()
    if device == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def network_row(shape: Sequence[int], config: ModelConfig, took: float, peak: float) -> Row:
    """What the seconds of one pass say; ``peak`` in operations a second."""
    kept, reached = kept_pixels(shape, config), operations(shape, config) / took
    return {
        "windows": list(shape),
        "ms": took * 1e3,
        "patches_per_second": kept / PATCH**2 / took,
        "megapixels_per_second": kept / 1e6 / took,
        "gflops": reached / 1e9,
        "peak_gflops": peak / 1e9,
        "share": reached / peak,
    }


def network_table(rows: list[Row]) -> str:
    """The net in each number format."""
    body = [
        [
            f"{row['device']}, {counted(row['threads'], 'thread')}",
            row["dtype"],
            "×".join(map(str, (row["windows"][0], *row["windows"][2:]))),
            f"{row['ms']:.2f}",
            f"{row['patches_per_second']:.1f}",
            f"{1 / row['megapixels_per_second']:.3f}",
            f"{row['gflops']:.0f}",
            f"{row['peak_gflops']:.0f}",
            f"{row['share']:.0%}",
        ]
        for row in rows
    ]
    head = ["on", "format", "windows", "ms", "patches/s", "s/MP", "GFLOP/s", "peak", "share"]
    text = (
        "`base` on the windows that `srcli upscale` gives it: fused blocks, and single patches. "
        "Patches (120×120) and megapixels are those that are kept; GFLOP/s are those of the "
        "convolutions that are run, context included; the peak is that of a matrix product in the "
        "same format and run, the best of several sizes and libraries.\n\n"
    )
    missing = "" if has_gpu(rows) else "\nNo CUDA device here: nothing is measured on one.\n"
    return text + markdown(head, body) + missing


# ---- peers --------------------------------------------------------------------------------


def measure_peers(run: Run) -> list[Row]:
    """Every net on the same photo, from array to array."""
    pixels = photo(run.sizes.photo)
    return [
        row
        for device in run.devices
        for count in thread_counts(device)
        for row in peer_rows(run.sizes, pixels, device, count)
    ]


def peer_rows(sizes: Sizes, pixels: NDArray[np.uint8], device: str, count: int) -> list[Row]:
    """All nets in all number formats on one device, by turns."""
    ways: dict[tuple[str, str], Callable[[], object]] = {}
    layouts = dict.fromkeys(("base", "paper"), "channels-last")
    with threads(count):
        for dtype in dtypes(device):
            for name in ("base", "paper"):
                ways[name, dtype] = own_way(name, pixels, dtype, device)
            for name in PEERS:
                layout, way = faster_layout(name, pixels, dtype, device)
                ways[name, dtype], layouts[f"{name} {dtype}"] = way, layout
        times = interleaved(ways, sizes.rounds, shortest=sizes.shortest, longest=sizes.longest)
    megapixels = pixels.shape[0] * pixels.shape[1] * SCALE**2 / 1e6
    return [
        {"device": device, "threads": count, "dtype": dtype, "net": name}
        | {"layout": layouts.get(f"{name} {dtype}", "channels-last")}
        | {"seconds": took, "seconds_per_megapixel": took / megapixels}
        | {"times_base": took / times["base", dtype]}
        for (name, dtype), took in times.items()
    ]


def own_way(name: str, pixels: NDArray[np.uint8], dtype: str, device: str) -> Callable[[], object]:
    """Enlarge by the upscaler: the shipped net, or the paper's with random weights."""
    settings = Settings(device=device, dtype=dtype)
    upscaler = Upscaler(
        "base" if name == "base" else ResidualAutoencoder(PAPER), scales=(SCALE,), settings=settings
    )
    picture = images.Picture(pixels=pixels)
    size = pixels.shape[0] * SCALE, pixels.shape[1] * SCALE
    return lambda: upscaler.upscale(picture, size)


def faster_layout(
    name: str, pixels: NDArray[np.uint8], dtype: str, device: str
) -> tuple[str, Callable[[], object]]:
    """Choose a peer's layout in memory on a quarter of the photo, to its advantage."""
    net = build(name)
    part = pixels[: pixels.shape[0] // 2, : pixels.shape[1] // 2]
    trials = {layout: peer_way(net, part, dtype, device, layout) for layout in LAYOUTS}
    times = interleaved(trials, 1)
    best = min(times, key=lambda layout: times[layout])
    return best, peer_way(net, pixels, dtype, device, best)


def peer_way(
    net: nn.Module, pixels: NDArray[np.uint8], dtype: str, device: str, layout: str
) -> Callable[[], object]:
    """Enlarge by a plain PyTorch net, the whole photo at once."""
    model: nn.Module = copy.deepcopy(net).to(device, DTYPES[dtype])
    model = model.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
    levels = torch.from_numpy(np.ascontiguousarray(pixels))

    @torch.inference_mode()
    def run() -> object:
        image = dequantize(levels.to(device).permute(2, 0, 1))[None].to(DTYPES[dtype])
        result = model(image.contiguous(memory_format=LAYOUTS[layout]))
        return quantize(result[0]).permute(1, 2, 0).contiguous().cpu().numpy()

    return run


def peer_table(rows: list[Row]) -> str:
    """One row a net, one column a device, number of threads and format."""
    columns = list(dict.fromkeys((row["device"], row["threads"], row["dtype"]) for row in rows))
    by_place = {(row["net"], row["device"], row["threads"], row["dtype"]): row for row in rows}
    body = []
    for name in dict.fromkeys(row["net"] for row in rows):
        found = [by_place[name, *column] for column in columns]
        cells = [f"{one['seconds_per_megapixel']:.3f} ({one['times_base']:.1f}×)" for one in found]
        body.append([*described(name), *cells])
    head = [
        *("net", "parameters", "Set5 ×3, dB"),
        *(f"{device}, {counted(count, 'thread')}, {dtype}" for device, count, dtype in columns),
    ]
    text = (
        "Seconds per output megapixel of one photo enlarged by three, from array to array, and in "
        "brackets how many times those of `base`. Peers are plain PyTorch modules of the published "
        "shape, to the parameter, with random weights, in inference mode, channels-last or not, "
        "whichever is faster. `base` and the paper's net go through srcli's upscaler. The PSNR is "
        "what the authors published, and for `base` that of the shipped file. What takes more than "
        f"{FULL.longest:g} s is timed once.\n\n"
    )
    return text + markdown(head, body)


def described(name: str) -> list[str]:
    """Name, parameters and picture of a net."""
    if name in PEERS:
        return [name, f"{PEERS[name].parameters:,}", f"{PEERS[name].psnr:.2f}"]
    if name == "paper":
        return ["the paper's", f"{parameter_count(PAPER):,}", ""]
    header = weights.read_header(weights.resolve(name))
    wanted = {"dataset": "Set5", "scale": SCALE}
    found = [one["psnr"] for one in header.scores if wanted.items() <= one.items()]
    return [f"`{name}`", f"{parameter_count(header.config):,}", f"{found[0]:.2f}" if found else ""]


# ---- end to end ---------------------------------------------------------------------------


def upscale(
    source: Path,
    target: Path,
    device: str,
    cores: int | None = None,
    more: Mapping[str, str] | None = None,
) -> Row:
    """Run ``srcli upscale`` as a process: seconds, and where they and the memory went.

    ``more`` are variables of its environment; options of the command among them.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        limit = [] if cores is None else ["--cores", str(cores)]
        options = ["--device", device, "--overwrite", "--quiet"]
        options += [] if more and "SRCLI_UPSCALE_MODEL" in more else ["-m", "base"]
        command = ["upscale", str(source), "-o", str(target), *options]
        begun = time.perf_counter()
        arguments = [str(CHILD), str(report), str(source), str(target), *limit, "--", *command]
        python(arguments, cores, more)
        took = time.perf_counter() - begun
        found: Row = json.loads(report.read_text(encoding="utf-8"))
    assert found["passes"], "the net was not seen at work; see child.watched"
    assert found["inside"] is not None, "the files were not seen; see child.FileClock"
    return found | {"wall": took}


def python(
    arguments: list[str], cores: int | None = None, more: Mapping[str, str] | None = None
) -> str:
    """Run Python with this checkout of srcli, and give what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | dict(more or {})
    if cores is not None:
        environment["OMP_NUM_THREADS"] = str(cores)
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def dry_run(
    sources: Iterable[Path], device: str, more: Mapping[str, str] | None = None
) -> list[Row]:
    """Bytes of memory and seconds that ``--dry-run`` predicts for each file."""
    options = ["-m", "base", "--device", device, "--dry-run", "--json"]
    printed = python(["-m", "srcli", "upscale", *map(str, sources), *options], None, more)
    lines = [json.loads(line) for line in printed.splitlines()]
    return [
        {"predicted": line["memory"], "predicted_seconds": line["seconds"]}
        for line in lines
        if not line.get("summary")
    ]


def middle(runs: list[Row]) -> Row:
    """Medians of several runs of one file; of memory the most."""
    times = {key: median(run[key] for run in runs) for key in ("wall", "inside", "net")}
    memory = {
        key: max((run[key] for run in runs if run[key] is not None), default=None)
        for key in ("memory", "device_memory")
    }
    whole, inside = times["net"] / times["wall"], times["net"] / times["inside"]
    return times | memory | {"share_of_wall": whole, "share_of_inside": inside}


def repeated(
    cases: dict[_Name, tuple[Path, int]],
    target: Path,
    device: str,
    more: Mapping[str, str] | None = None,
) -> dict[_Name, Row]:
    """Enlarge several files by turns, each as often as it says."""
    found: dict[_Name, list[Row]] = {name: [] for name in cases}
    for turn in range(max(count for _, count in cases.values())):
        for name, (source, count) in cases.items():
            if turn < count:
                result = target / f"large{source.suffix}"
                found[name].append(upscale(source, result, device, None, more))
                result.unlink()
    return {name: middle(runs) for name, runs in found.items()}


def measure_end(run: Run) -> list[Row]:
    """``srcli upscale`` from JPEG to JPEG and from PNG to PNG."""
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[tuple[str, str, float], tuple[Path, int]] = {}
        for name, size, count in run.sizes.ends:
            pixels = photo(size)
            for suffix in ("jpg", "png"):
                source = save(pixels, Path(folder, f"{len(cases)}.{suffix}"))
                cases[name, suffix, size[0] * size[1] * SCALE**2 / 1e6] = source, count
        by_openvino = [
            ("cpu", {"SRCLI_UPSCALE_ENGINE": "openvino", "SRCLI_UPSCALE_DTYPE": dtype})
            for dtype in ("fp32", "int8")
            if find_spec("openvino")
        ]
        ways: list[tuple[str, dict[str, str]]] = [(device, {}) for device in run.devices]
        return [
            row
            for device, more in (*ways, *by_openvino)
            for row in end_rows(cases, Path(folder), device, more)
        ]


def end_rows(
    cases: dict[tuple[str, str, float], tuple[Path, int]],
    folder: Path,
    device: str,
    more: Mapping[str, str],
) -> list[Row]:
    """All files on one device."""
    predicted = dry_run([source for source, _ in cases.values()], device, more)
    found = repeated(cases, folder, device, more)
    place = " ".join([device, *more.values()])
    return [
        {"device": device, "place": place, "picture": name, "format": suffix}
        | {"megapixels": megapixels}
        | row
        | estimate
        for ((name, suffix, megapixels), row), estimate in zip(
            found.items(), predicted, strict=True
        )
    ]


def end_table(rows: list[Row]) -> str:
    """One row a file."""
    body = [
        [
            row.get("place", row["device"]),
            row["picture"],
            row["format"],
            f"{row['wall']:.2f}",
            f"{row['inside']:.2f}",
            f"{row['wall'] / row['megapixels']:.3f}",
            f"{row['inside'] / row['megapixels']:.3f}",
            f"{row['share_of_wall']:.0%}",
            f"{row['share_of_inside']:.0%}",
            *predicted_cells(row),
            *([gpu_memory(row)] if has_gpu(rows) else []),
        ]
        for row in rows
    ]
    head = [
        *("on", "photo", "files", "s, process", "s, file", "s/MP, process", "s/MP, file"),
        *("net of process", "net of file", *PREDICTED),
        *(["GPU MB"] if has_gpu(rows) else []),
    ]
    text = (
        "`srcli upscale` ×3 as a process; `file` is from opening the input to naming the result, "
        "without the start. The net's share is wall time in its forward pass. Memory is what was "
        "resident at the most; predicted is what `--dry-run` says of both, and the ratios are to "
        "`file` and to the peak.\n\n"
    )
    return text + markdown(head, body)


PREDICTED = ("predicted s", "ratio", "peak MB", "predicted MB", "ratio")
"""The heads of :func:`predicted_cells`."""


def predicted_cells(row: Row) -> list[str]:
    """What was predicted of time and memory, and how it compares; time is new in later results."""
    seconds, peak, predicted = row.get("predicted_seconds"), row["memory"], row["predicted"]
    times = ["", ""] if seconds is None else [f"{seconds:.2f}", f"{seconds / row['inside']:.2f}"]
    return [*times, f"{peak / 1e6:.0f}", f"{predicted / 1e6:.0f}", f"{predicted / peak:.2f}"]


def gpu_memory(row: Row) -> str:
    """The most that torch had on the GPU."""
    return "" if row["device_memory"] is None else f"{row['device_memory'] / 1e6:.0f}"


# ---- start-up -----------------------------------------------------------------------------


def measure_start(run: Run) -> list[Row]:
    """Processes that do next to nothing."""
    with tempfile.TemporaryDirectory() as folder:
        source = save(photo((100, 100)), Path(folder, "small.png"))
        small = ["upscale", str(source), "-m", "base", "--overwrite", "--quiet"]
        commands = {
            "python, nothing": ["-c", "pass"],
            TORCH: ["-c", "import torch"],
            "srcli --help": ["-m", "srcli", "--help"],
            "srcli --version": ["-m", "srcli", "--version"],
            SMALL: ["-m", "srcli", *small, "--device", run.devices[-1]],
        }
        ways: dict[str, Callable[[], object]] = {
            name: (lambda command=command: python(command))  # type: ignore[misc]
            for name, command in commands.items()
        }
        times = interleaved(ways, run.sizes.starts, longest=run.sizes.longest)
    return [{"command": name, "seconds": took} for name, took in times.items()]


def start_table(rows: list[Row]) -> str:
    """One row a command."""
    times = {row["command"]: row["seconds"] for row in rows}
    body = [[name, f"{took:.2f}"] for name, took in times.items()]
    beyond = times[SMALL] - times[TORCH]
    more = f"\nThe small picture takes {beyond:.2f} s more than importing torch.\n"
    return "Whole processes, medians.\n\n" + markdown(["command", "s"], body) + more


# ---- scaling ------------------------------------------------------------------------------


def measure_scaling(run: Run) -> list[Row]:
    """``srcli upscale`` from TIFF to TIFF, from small to huge."""
    with tempfile.TemporaryDirectory() as folder:
        cases: dict[float, tuple[Path, int]] = {}
        for megapixels in run.sizes.scaling:
            size = rectangle(megapixels, SCALE)
            source = save(photo(size), Path(folder, f"{megapixels}.tif"))
            count = run.sizes.rounds if megapixels <= run.sizes.often else 1
            cases[size[0] * size[1] * SCALE**2 / 1e6] = source, count
        predicted = dry_run([source for source, _ in cases.values()], run.devices[-1])
        found = repeated(cases, Path(folder), run.devices[-1])
    return [
        {"device": run.devices[-1], "megapixels": megapixels} | row | estimate
        for (megapixels, row), estimate in zip(found.items(), predicted, strict=True)
    ]


def scaling_table(rows: list[Row]) -> str:
    """One row a size."""
    body = [
        [
            f"{row['megapixels']:.3g}",
            f"{row['wall']:.1f}",
            f"{row['inside'] / row['megapixels']:.3f}",
            f"{row['net'] / row['megapixels']:.3f}",
            *predicted_cells(row),
        ]
        for row in rows
    ]
    head = [*("MP out", "s, process", "s/MP, file", "s/MP, net"), *PREDICTED]
    text = (
        f"`srcli upscale` ×3, TIFF to TIFF, on the {rows[0]['device'].upper()}; columns as above."
        "\n\n![seconds per megapixel and memory by size](performance.png)\n\n"
    )
    return text + markdown(head, body)


def draw_scaling(rows: list[Row], path: Path) -> None:
    """Draw time and memory over the size of the result."""
    from matplotlib import style  # noqa: PLC0415 - imported only when something is drawn
    from matplotlib.figure import Figure  # noqa: PLC0415

    plain = {"axes.grid": True, "axes.spines.right": False, "axes.spines.top": False}
    sizes = [row["megapixels"] for row in rows]
    with style.context(["default", plain | {"grid.color": "#dddddd", "legend.frameon": False}]):
        figure = Figure(figsize=(10, 4.5), dpi=128, layout="constrained")
        left, right = figure.subplots(1, 2)
        for key, label, look in (("inside", "file to file", "o-"), ("net", "the net", "s--")):
            left.plot(sizes, [row[key] / row["megapixels"] for row in rows], look, label=label)
        for key, label, look in (("memory", "measured", "o-"), ("predicted", "--dry-run", "s--")):
            right.plot(sizes, [row[key] / 1e6 for row in rows], look, label=label)
        for axes, name in ((left, "seconds per output megapixel"), (right, "peak memory, MB")):
            axes.set(xscale="log", xlabel="output megapixels", ylabel=name)
            axes.set_ylim(bottom=0)
            axes.legend()
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


# ---- a folder -----------------------------------------------------------------------------


def measure_folder(run: Run) -> list[Row]:
    """A folder of JPEGs on one core, two, four and so on."""
    with tempfile.TemporaryDirectory() as name:
        folder, target = Path(name, "photos"), Path(name, "large")
        megapixels = make_folder(folder, run.sizes)
        found: dict[int, list[Row]] = {count: [] for count in core_counts()}
        for _ in range(run.sizes.rounds):
            for cores, runs in found.items():
                runs.append(upscale(folder, target, "cpu", cores))
    return [
        {"cores": cores, "files": run.sizes.files, "megapixels": megapixels} | middle(runs)
        for cores, runs in found.items()
    ]


def make_folder(folder: Path, sizes: Sizes) -> float:
    """Write the JPEGs; give the megapixels of their results."""
    folder.mkdir()
    pixels = 0
    for number in range(sizes.files):
        side = sizes.side + number * sizes.side // sizes.files
        save(photo((side, 3 * side // 2)), folder / f"{number:03}.jpg")
        pixels += side * (3 * side // 2) * SCALE**2
    return pixels / 1e6


def core_counts() -> tuple[int, ...]:
    """1, 2, 4 and so on, as many as there are; none where a process cannot be kept to some."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    most = len(os.sched_getaffinity(0))
    return tuple(1 << power for power in range(most.bit_length()))


def folder_table(rows: list[Row]) -> str:
    """One row a number of cores."""
    if not rows:
        return "This system cannot keep a process to some cores: nothing is measured.\n"
    first = rows[0]["inside"]
    body = [
        [
            str(row["cores"]),
            f"{row['inside']:.2f}",
            f"{row['megapixels'] / row['inside']:.2f}",
            f"{row['files'] / row['inside']:.2f}",
            f"{first / row['inside']:.2f}",
            f"{row['share_of_inside']:.0%}",
        ]
        for row in rows
    ]
    head = ["cores", "s", "MP/s", "files/s", "times one core", "net"]
    text = (
        f"{rows[0]['files']} JPEGs, together {rows[0]['megapixels']:.1f} output megapixels, by one "
        "process of `srcli upscale` that is kept to so many cores, without its start.\n\n"
    )
    return text + markdown(head, body)


# ---- computers that people have -----------------------------------------------------------


def measure_computers(run: Run) -> list[Row]:
    """Whole photographs by kinds of processors, engines and nets, and beside nets of others."""
    with tempfile.TemporaryDirectory() as name:
        sources = [
            save(photo(task.size), Path(name, f"{task.scale}.jpg")) for task in run.sizes.tasks
        ]
        rows = [
            computer_row(kind, how, model, list(zip(run.sizes.tasks, sources, strict=True)))
            for kind in LIMITS
            if capable(kind)
            for how in ENGINES[kind]
            if "openvino" not in how or find_spec("openvino")
            for model in (("base", "fast") if how == ENGINES[kind][-1] else ("base",))
        ]
    low = photo(run.sizes.photo)
    for peer, files in NCNN_PEERS.items() if run.peers else ():
        net = Ncnn(files, run.peers or Path())
        took = per_megapixel(net, low, run.sizes.rounds)
        times = {
            task.title: took * task.megapixels
            for task in run.sizes.tasks
            if task.scale == net.scale
        }
        rows.append(
            {"device": "cpu", "kind": "all", "how": "ncnn fp32", "net": peer, "times": times}
        )
    return rows


def computer_row(kind: str, how: str, model: str, tasks: list[tuple[Task, Path]]) -> Row:
    """Whole photographs from file to file by one engine in one number format."""
    engine, dtype = how.split()
    times, shares = {}, {}
    for task, source in tasks:
        chosen = {"ENGINE": engine, "DTYPE": dtype, "MODEL": model, "SCALE": str(task.scale)}
        more = limited(kind) | {f"SRCLI_UPSCALE_{name}": value for name, value in chosen.items()}
        target = source.with_name("large.jpg")
        found = upscale(source, target, "cpu", None, more)
        target.unlink()
        times[task.title], shares[task.title] = found["wall"], found["net"] / found["inside"]
    row = {"device": "cpu", "kind": kind, "how": how, "net": f"`{model}`"}
    return row | {"times": times, "shares": shares}


def computer_table(rows: list[Row]) -> str:
    """One row a processor, engine and net."""
    titles = list(dict.fromkeys(title for row in rows for title in row["times"]))
    body = []
    for row in rows:
        times = [row["times"].get(title) for title in titles]
        cells = [
            "" if took is None else f"{took:.1f}" if took < 10 else f"{took:.0f}" for took in times
        ]
        shares = ", ".join(f"{share:.0%}" for share in row.get("shares", {}).values())
        body.append([row["kind"], row["how"], row["net"], *cells, shares])
    text = (
        "Seconds of a whole process from JPEG to JPEG on all cores, its start included, and the "
        "net's share of a file's time. The instructions are limited by oneDNN's "
        "`ONEDNN_MAX_CPU_ISA` (and torch's `ATEN_CPU_CAPABILITY`) on one processor: an older one "
        "is slower by its clock. Peers by ncnn with all instructions, whole picture, from array to "
        "array: the time for a megapixel of a smaller photo times the size.\n\n"
    )
    return text + markdown(["instructions", "engine", "net", *titles, "net's share"], body)


# ---- the page -----------------------------------------------------------------------------


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rule = "|" + "---|" * len(head)
    cells = [f"| {' | '.join(row)} |" for row in (head, *body)]
    return "\n".join([cells[0], rule, *cells[1:], ""])


def counted(count: int, what: str) -> str:
    """A number and its noun."""
    return f"{count} {what}{'s' if count > 1 else ''}"


def has_gpu(rows: list[Row]) -> bool:
    """Whether something was measured on a GPU."""
    return any(row["device"] == "cuda" for row in rows)


def machine() -> Row:
    """What is measured on, and with what."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "srcli": srcli.__version__,
    }


def cpu_name() -> str:
    """The processor as Linux names it, else as Python does."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text(encoding="utf-8").splitlines() if found.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine_line(found: Row) -> str:
    """One line about a machine."""
    return (
        f"{found['cpu']}, {counted(found['cores'], 'core')}, "
        f"{counted(found['threads'], 'thread')}; {found['gpu'] or 'no GPU'}; Python "
        f"{found['python']}, torch {found['torch']}, srcli {found['srcli']}"
    )


def page(parts: dict[str, Any]) -> str:
    """The whole page, each part with its date, and with its machine where they differ."""
    lines = list(dict.fromkeys(machine_line(part["machine"]) for part in parts.values()))
    text = ["# Performance", "", "Made by `python benchmarks/performance.py`."]
    text += [f"{lines[0]}." if len(lines) == 1 else "Several machines: each part names its own."]
    for name, part in parts.items():
        where = "" if len(lines) == 1 else f"; {machine_line(part['machine'])}"
        text += ["", f"## {PARTS[name].title}", ""]
        text += [f"{part['date']}, {part['seconds']:.0f} s{where}.", ""]
        text += [PARTS[name].table(part["rows"]).rstrip("\n")]
    return "\n".join(text) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section of the page."""

    title: str
    measure: Callable[[Run], list[Row]]
    table: Callable[[list[Row]], str]


PARTS = {
    "network": Part(title="The net alone", measure=measure_network, table=network_table),
    "peers": Part(title="Beside other nets", measure=measure_peers, table=peer_table),
    "end": Part(title="End to end", measure=measure_end, table=end_table),
    "start": Part(title="Start-up", measure=measure_start, table=start_table),
    "scaling": Part(title="From small to huge", measure=measure_scaling, table=scaling_table),
    "folder": Part(title="A folder by cores", measure=measure_folder, table=folder_table),
    "computers": Part(
        title="Computers that people have", measure=measure_computers, table=computer_table
    ),
}


def measured(name: str, run: Run) -> Row:
    """Measure a part, and note when, how long and on what."""
    begun = time.perf_counter()
    rows = PARTS[name].measure(run)
    date = datetime.now(UTC).date().isoformat()
    took = time.perf_counter() - begun
    return {"date": date, "seconds": took, "machine": machine(), "rows": rows}


def write(parts: dict[str, Any], folder: Path) -> None:
    """Write the numbers and the page."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"performance.json": json.dumps(parts, indent=1) + "\n", "performance.md": page(parts)}
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--only", action="append", choices=PARTS, help="remake this part alone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="files of ncnn")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: benchmarks/results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as nowhere:
        # What is quick says nothing of the machine: it is kept only where that is asked for.
        output = options.output or (Path(nowhere) if options.quick else RESULTS)
        run_parts(options, output)


def run_parts(options: argparse.Namespace, output: Path) -> None:
    """Measure the parts that are asked for; each is written as soon as it is done."""
    cuda = ("cuda",) if torch.cuda.is_available() else ()
    devices = {"auto": ("cpu", *cuda), "cpu": ("cpu",), "cuda": ("cuda",)}[options.device]
    there = output / "performance.json"
    known = json.loads(there.read_text(encoding="utf-8")) if there.exists() else {}
    sizes = QUICK if options.quick else FULL
    for name in options.only or PARTS:
        known[name] = measured(name, Run(sizes=sizes, devices=devices, peers=options.peers))
        known = {part: known[part] for part in PARTS if part in known}
        write(known, output)
        if name == "scaling":
            draw_scaling(known[name]["rows"], output / "performance.png")
        print(f"{name}: {known[name]['seconds']:.0f} s", file=sys.stderr)
    print(page(known), end="")


if __name__ == "__main__":
    main()
