"""Metrics beside PSNR and SSIM, as the library torchmetrics computes them.

LPIPS and DISTS compare features of nets that torchvision trained on ImageNet. Both libraries are
an extra and slow to import, so they are imported when a metric is asked for. A net's file is read
only if it is the published one, byte by byte: torchvision unpickles it.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from srcli.errors import DataError, UsageError, WeightsError
from srcli.files import is_there, one_line
from srcli.imaging.images import Picture
from srcli.ops.arrays import planes
from srcli.ops.color import dequantize
from srcli.ops.devices import memory_errors, on_device

__all__ = ["METRICS", "Metric", "PerceptualScorer", "fetch"]

_HOST = "https://download.pytorch.org/models"


class Metric(NamedTuple):
    """What a metric is called, which way is better, and which net it needs."""

    label: str
    lower_is_better: bool = False
    file: str = ""
    """Of the net, as torchvision names it; empty: none."""

    digest: str = ""
    """SHA-256 of the file."""


_ALEXNET: Final = (
    "alexnet-owt-7be5be79.pth",
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
)
_VGG16: Final = (
    "vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)

METRICS: Final = MappingProxyType(
    {
        "lpips": Metric("LPIPS", True, *_ALEXNET),
        "lpips-vgg": Metric("LPIPS-VGG", True, *_VGG16),
        "dists": Metric("DISTS", True, *_VGG16),
        "ms-ssim": Metric("MS-SSIM"),
        "vif": Metric("VIF"),
    }
)
"""The metrics that can be added, by the name that ``--metric`` has."""

_Compare = Callable[[Tensor, Tensor], Tensor]


class PerceptualScorer:
    """Computes metrics on RGB of the whole pictures, nothing cut."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        """Load what some of :data:`METRICS` need.

        Raises:
            UsageError: If a library is missing, or torchvision does not fit torch.
            WeightsError: If the file of a net is missing or not the published one.
        """
        self._device = device
        self._metrics = {name: _load(name, device) for name in names}

    @torch.inference_mode()
    def scores(self, label: str, result: Picture, high: Picture) -> dict[str, float]:
        """Return the value of each metric of a result beside its original; errors have the label.

        Raises:
            DataError: If the pictures are too small for a metric.
            MemoryError: If the device has too little memory.
        """
        if not self._metrics:
            return {}
        pair = [_rgb(picture).to(self._device) for picture in (result, high)]
        values: dict[str, float] = {}
        for name, compare in self._metrics.items():
            try:
                with memory_errors():
                    values[name] = float(compare(*pair))
            except (RuntimeError, ValueError) as error:  # torch's and torchmetrics' for small ones
                raise DataError(
                    f"{label} cannot be scored by --metric {name}: {_first_line(error)}; leave "
                    "the metric or the image out"
                ) from error
        return values


def fetch(names: Sequence[str], *, quiet: bool) -> None:
    """Download the files that metrics need and that are not there yet.

    Raises:
        WeightsError: If the host refuses or sends something else, or it cannot be written.
    """
    for file, digest in {METRICS[name][2:] for name in names}:
        path = _path(file)
        if not file or is_there(path):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(f"{_HOST}/{file}", str(path), digest, not quiet)
        except (OSError, RuntimeError) as error:
            why = _first_line(getattr(error, "reason", error))
            raise WeightsError(
                f"cannot download {_HOST}/{file}: {why}; try again later, or put the file into "
                f"{one_line(path.parent)} by hand"
            ) from error


def _load(name: str, device: torch.device) -> _Compare:
    """Return the function that computes a metric of two batches of RGB in [0, 1]."""
    file = METRICS[name].file
    try:
        if file:
            import torchvision  # noqa: F401, PLC0415
        # Extras, and slow to import; torchmetrics takes the net from torchvision.
        from torchmetrics.functional import image  # noqa: PLC0415
        from torchmetrics.functional.image import dists  # noqa: PLC0415
        from torchmetrics.image import lpip  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--metric {name} needs the package {str(error.name).partition('.')[0]}, which is not "
            "installed; install it with: pip install 'srcli[metrics]' "
            f"torch=={torch.__version__.partition('+')[0]}"
        ) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"--metric {name}: the installed torchvision does not fit torch {torch.__version__} "
            f"({_first_line(error)}); install the build of torchvision for this torch"
        ) from error
    if name == "ms-ssim":
        return lambda x, y: image.multiscale_structural_similarity_index_measure(
            x, y, data_range=1.0
        )
    if name == "vif":  # its noise is measured in levels
        return lambda x, y: image.visual_information_fidelity(x * 255, y * 255)
    _check(name)
    net: nn.Module
    if name == "dists":
        net = dists.DISTSNetwork()
    else:
        net = lpip.LearnedPerceptualImagePatchSimilarity(
            "vgg" if name == "lpips-vgg" else "alex", normalize=True
        )
    return on_device(net.eval(), device)


def _check(name: str) -> None:
    """Refuse a net's file that is missing, which would be downloaded, or not the published one."""
    *_, file, digest = METRICS[name]
    path = _path(file)
    shown = one_line(path)
    try:
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise WeightsError(
            f"--metric {name} needs {shown}, which is not there; add --download, or get it from "
            f"{_HOST}/{file}"
        ) from error
    if found != digest:
        raise WeightsError(
            f"{shown} is not the published file (its SHA-256 begins with {found[:8]}, not "
            f"{digest[:8]}); delete it and add --download"
        )


def _path(file: str) -> Path:
    """Where torch keeps a file that it downloads; ``TORCH_HOME`` moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file


def _rgb(picture: Picture) -> Tensor:
    """Return a picture as a batch of one, ``(1, 3, H, W)``; grey as three equal channels."""
    return dequantize(planes(picture.pixels)).float()[None].expand(-1, 3, -1, -1)


def _first_line(error: object) -> str:
    """Return the first line of an error, without the full stop."""
    return one_line(str(error).strip().partition("\n")[0].rstrip(".")) or type(error).__name__
