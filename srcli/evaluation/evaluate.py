"""``srcli eval``: scores by the literature's protocol, resampling filters beside the models.

The protocol: every method's result is rounded to 8 bits, luma is BT.601 studio range and not
rounded, ``scale`` pixels of border are cut, PSNR and SSIM (11x11 Gaussian, sigma 1.5) are means
over the images. Of CelebA and STL-10 the 120x120 pixels in the middle are scored, the patches
that the source paper trains on; its "accuracy" is measured on RGB, the border cut as well.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from srcli.errors import DataError
from srcli.evaluation import panels
from srcli.evaluation.config import BASELINE, FILTERS, EvalConfig
from srcli.evaluation.pairs import list_pairs
from srcli.evaluation.perceptual import METRICS, PerceptualScorer
from srcli.evaluation.report import EvalReport, Score, short_labels
from srcli.imaging.images import Picture, eight_bits
from srcli.ops.arrays import interleaved, planes
from srcli.ops.color import dequantize, luma, quantize
from srcli.ops.metrics import agreement, crop_border, psnr, ssim
from srcli.ops.resample import axis_weights, resampled
from srcli.ops.spans import Span
from srcli.upscaler import Upscaler

__all__ = ["evaluate"]


def evaluate(
    config: EvalConfig,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    on_message: Callable[[str], None] = lambda _: None,
) -> EvalReport:
    """Score models and filters on a data set; draw the panels that are asked for.

    Args:
        config: The images, the methods and the protocol.
        on_progress: Called with the images done and their number.
        on_message: Called with one line for anything worth knowing.

    Returns:
        The report.

    Raises:
        DataError: If images are missing or do not fit each other.
        OutputError: If a panel cannot be written.
        UsageError: If the panels would lie among the images, or a metric's library is missing.
        WeightsError: If a model, or the net of a metric, cannot be loaded.
    """
    pairs, lr_source = list_pairs(config, on_message)
    upscalers = {
        name: Upscaler(model, settings=settings) for name, (model, settings) in config.nets.items()
    }
    first = next(iter(upscalers.values()))
    scorer = PerceptualScorer(config.metrics, first.device)
    targets = panels.prepare(config.panels, pairs) if config.panels else [None] * len(pairs)
    scores: list[Score] = []
    for done, (pair, target) in enumerate(zip(pairs, targets, strict=True), start=1):
        high, low = pair.read()
        size = high.height, high.width
        results = {name: _filtered(low, size, name) for name in config.baselines}
        results |= {name: eight_bits(model.upscale(low, size)) for name, model in upscalers.items()}
        own = [
            Score(pair.name, name, _compare(pair.label, result, high, config, scorer))
            for name, result in results.items()
        ]
        scores += own
        if target is not None:
            _draw_panel(target, (high, low), results, own, config)
        on_progress(done, len(pairs))
    return EvalReport(config=config, lr=lr_source, compute=first.compute, scores=tuple(scores))


def _filtered(low: Picture, size: tuple[int, int], name: str) -> Picture:
    """Enlarge to a height and width by one of :data:`FILTERS`, rounded once."""
    down = axis_weights(low.height, size[0], Span(0, size[0]), FILTERS[name])
    across = axis_weights(low.width, size[1], Span(0, size[1]), FILTERS[name])
    return Picture(pixels=interleaved(quantize(resampled(planes(low.pixels), down, across))))


def _compare(
    label: str, result: Picture, high: Picture, config: EvalConfig, scorer: PerceptualScorer
) -> dict[str, float]:
    """Return PSNR, SSIM, accuracy and the added metrics of a result by the configured protocol."""
    images = [dequantize(planes(picture.pixels)).double() for picture in (result, high)]
    try:
        cropped = [crop_border(image, config.border)[None] for image in images]
        colors = [image.expand(-1, 3, -1, -1) for image in cropped]
        compared = [luma(image) for image in cropped] if config.channel == "y" else colors
        usual = {
            "psnr": float(psnr(*compared)),
            "ssim": float(ssim(*compared)),
            "accuracy": float(agreement(*colors)),
        }
    except ValueError as error:  # it is too small
        raise DataError(f"{label} cannot be scored: {error}") from error
    return usual | scorer.scores(label, result, high)


def _draw_panel(
    target: Path,
    pair: tuple[Picture, Picture],
    results: Mapping[str, Picture],
    scores: Sequence[Score],
    config: EvalConfig,
) -> None:
    """Show LR, every method's result, and HR, where the first baseline differs most from HR."""
    high, low = pair
    size = high.height, high.width
    first = next(iter(config.baselines), None)
    plain = _filtered(low, size, BASELINE) if first is None else results[first]
    labels = short_labels(list(results))
    views = [
        ("LR", _filtered(low, size, "nearest"), f"{low.width}x{low.height}, x{config.scale:g}"),
        *((labels[one.method], results[one.method], _caption(one.values)) for one in scores),
        ("HR", high, f"{high.width}x{high.height}"),
    ]
    panels.draw(target, views, panels.worst_window(high, plain))


def _caption(values: Mapping[str, float]) -> str:
    """Return the scores of one result as a panel has them."""
    added = [f"{METRICS[name].label} {values[name]:z.4f}" for name in values if name in METRICS]
    return " / ".join([f"{values['psnr']:.2f} dB", f"{values['ssim']:.4f}", *added])
