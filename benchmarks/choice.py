"""Measure at which quality of a JPEG ``photo`` begins to lose against ``base``.

    python benchmarks/choice.py [FOLDER] [--photo FILE] [--scale N]...

FOLDER holds lossless HR images. The middle of each is reduced by our bicubic, written as JPEG (and
as lossy WebP and AVIF), enlarged with both weights, and compared with the HR image: luma PSNR, the
scale's border cut. Where the mean of ``photo`` falls below that of ``base`` is the threshold in
``srcli.upscaling.choose``. Results go to ``benchmarks/results/choice.md`` and ``choice.json``.
"""

import argparse
import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import mean

import torch
from PIL import Image
from torch import Tensor

from srcli.data.degrading import degrade
from srcli.data.folders import files_in
from srcli.imaging import images
from srcli.model import weights
from srcli.ops.color import dequantize, luma, quantize
from srcli.ops.metrics import crop_border, psnr
from srcli.upscaler import Settings, Upscaler

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
JPEG_QUALITIES = (30, 50, 70, 75, 80, 85, 90, 95, 100)
OTHER_QUALITIES = (50, 75, 90, 100)
SIDE = 288
"""Side of the middle of each HR image that is used, pixels: a multiple of 2, 3 and 4."""

LOSSLESS = "lossless"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to store a small image."""

    name: str
    """What the tables call it."""

    format: str
    """Pillow's name of the format."""

    qualities: tuple[int, ...]
    subsampling: str | None = None
    """Of JPEG's and AVIF's colours; None: the format has no choice."""


CASES = (
    Case(name="JPEG 4:2:0", format="JPEG", qualities=JPEG_QUALITIES, subsampling="4:2:0"),
    Case(name="JPEG 4:4:4", format="JPEG", qualities=JPEG_QUALITIES, subsampling="4:4:4"),
    Case(name="WebP", format="WEBP", qualities=OTHER_QUALITIES),
    Case(name="AVIF 4:2:0", format="AVIF", qualities=OTHER_QUALITIES, subsampling="4:2:0"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Mean luma PSNR of all images stored in one way."""

    case: str
    scale: int
    quality: int | None
    """None: not compressed with losses at all."""

    base: float
    photo: float


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "examples" / "originals")
    parser.add_argument("--photo", default="photo", help="weights: a name or a file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scale", type=int, action="append", help="repeat for more; 3 and 2")
    options = parser.parse_args()
    names = {"base": "base", "photo": options.photo}
    settings = Settings(device=options.device)
    nets = {name: Upscaler(model, settings=settings) for name, model in names.items()}
    paths = files_in(options.folder)
    rows: list[Row] = []
    for scale in options.scale or (3, 2):
        pairs = [reduced(path, scale) for path in paths]
        for row in measured(nets, pairs, scale):
            rows.append(row)
            print(row, flush=True)
    sums = {name: checksum(model) for name, model in names.items()}
    dtype = str(nets["base"].dtype).removeprefix("torch.")
    text = report(rows, sums, (options.folder.name, len(paths), dtype))
    print(text)
    record = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "dtype": dtype,
        "folder": options.folder.name,
        "side": SIDE,
        "images": [path.name for path in paths],
        "weights": sums,
        "crossings": crossings(rows),
        "thresholds": thresholds(rows),
        "rows": [asdict(row) for row in rows],
    }
    (RESULTS / "choice.md").write_text(text, encoding="utf-8")
    (RESULTS / "choice.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def checksum(model: str) -> str:
    """SHA-256 of a weights file."""
    return hashlib.sha256(weights.resolve(model).read_bytes()).hexdigest()


def reduced(path: Path, scale: int) -> tuple[Tensor, Tensor]:
    """Read the middle of an HR image and reduce it: both ``(3, H, W)`` ``uint8``."""
    high = torch.from_numpy(images.read(path).pixels).permute(2, 0, 1)
    top, left = (max(0, length - SIDE) // 2 for length in high.shape[1:])
    high = high[:, top : top + SIDE, left : left + SIDE]
    high = high[:, : high.shape[1] // scale * scale, : high.shape[2] // scale * scale]
    return high, quantize(degrade(dequantize(high), scale))


def measured(
    nets: dict[str, Upscaler], pairs: Sequence[tuple[Tensor, Tensor]], scale: int
) -> Iterator[Row]:
    """Score both nets on every case at one scale."""
    yield scored(nets, pairs, scale, CASES[0], None)
    for case in CASES:
        for quality in case.qualities:
            yield scored(nets, pairs, scale, case, quality)


def scored(
    nets: dict[str, Upscaler],
    pairs: Sequence[tuple[Tensor, Tensor]],
    scale: int,
    case: Case,
    quality: int | None,
) -> Row:
    """Score both nets on one case at one quality."""
    means = dict.fromkeys(nets, 0.0)
    for high, low in pairs:
        small = low if quality is None else stored(low, case, quality)
        for name, net in nets.items():
            bands = net.enlarge(small, (high.shape[1], high.shape[2]))
            large = torch.cat([band for _, band in bands], 1).clamp(0, 1)
            views = (crop_border(luma(view)[None], scale) for view in (large, dequantize(high)))
            means[name] += float(psnr(*views)) / len(pairs)
    name = LOSSLESS if quality is None else case.name
    return Row(case=name, scale=scale, quality=quality, **means)


def stored(image: Tensor, case: Case, quality: int) -> Tensor:
    """Write an image, and read it again."""
    data = BytesIO()
    chosen = {} if case.subsampling is None else {"subsampling": case.subsampling}
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(data, case.format, quality=quality, **chosen)
    read = images.read(Path(case.name), data.getvalue())
    return torch.from_numpy(read.pixels).permute(2, 0, 1)


def crossings(rows: Sequence[Row]) -> dict[str, float | None]:
    """Return for each case and scale the quality at which ``photo`` begins to lose.

    Interpolated between the last quality at which it is ahead and the next one; None where it
    is ahead at every quality.
    """
    return {
        f"{case.name} x{scale}": crossing(
            [row for row in rows if (row.case, row.scale) == (case.name, scale)]
        )
        for scale in scales_of(rows)
        for case in CASES
    }


def scales_of(rows: Sequence[Row]) -> list[int]:
    """List the scales that were measured, in order."""
    return list(dict.fromkeys(row.scale for row in rows))


def thresholds(rows: Sequence[Row]) -> dict[str, int]:
    """Return the means, rounded down; JPEG's is ``srcli.upscaling.choose.BEST_CLEANED``."""
    found = {"JPEG": [100.0], "WEBP": [100.0]}
    for case in CASES:
        if case.format in found:
            names = [f"{case.name} x{scale}" for scale in scales_of(rows)]
            found[case.format] += [crossings(rows)[name] or 100.0 for name in names]
    return {name: int(mean(values[1:])) for name, values in found.items()}


def crossing(rows: Sequence[Row]) -> float | None:
    """Interpolate the zero of the gain of ``photo``; ``rows`` ascend by quality."""
    gains = [row.photo - row.base for row in rows]
    qualities = [row.quality or 0 for row in rows]
    ahead = [index for index, gain in enumerate(gains) if gain > 0]
    if not ahead:
        return float(qualities[0])
    last = ahead[-1]
    if last + 1 == len(rows):
        return None
    share = gains[last] / (gains[last] - gains[last + 1])
    return round(qualities[last] + share * (qualities[last + 1] - qualities[last]), 1)


def report(rows: Sequence[Row], sums: dict[str, str], what: tuple[str, int, str]) -> str:
    """Write the tables as Markdown; ``what`` is the folder, its images, and the number format."""
    folder, count, dtype = what
    scales = scales_of(rows)
    lines = [
        (
            f"torch {torch.__version__}, {platform.machine()} CPU, {dtype}; the middle "
            f"{SIDE}x{SIDE} of {count} images of {folder}, reduced by our bicubic, stored, "
            "enlarged; mean luma PSNR in dB"
        ),
        "",
        *(f"- `{name}`: SHA-256 {value}" for name, value in sums.items()),
        "",
        "| stored as | quality |" + "".join(f" base x{s} | photo x{s} | gain |" for s in scales),
        "|---|---|" + "---|---|---|" * len(scales),
    ]
    first = [row for row in rows if row.scale == scales[0]]
    for one in first:
        same = [row for row in rows if (row.case, row.quality) == (one.case, one.quality)]
        cells = (f"{r.base:.2f} | {r.photo:.2f} | {r.photo - r.base:+.2f}" for r in same)
        lines.append(f"| {one.case} | {one.quality or ''} | {' | '.join(cells)} |")
    lines += ["", "`photo` is ahead up to the quality:", ""]
    for name, value in crossings(rows).items():
        lines.append(f"- {name}: {'all' if value is None else value}")
    lines += ["", f"Their means, `srcli.upscaling.choose.BEST_CLEANED`: {thresholds(rows)}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
