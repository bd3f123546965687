"""Options that more than one command has, and how their values are parsed."""

import glob
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from srcli import files
from srcli.errors import UsageError

if TYPE_CHECKING:
    from srcli.upscaler import Settings

__all__ = [
    "DATA",
    "DEGRADATION",
    "FILES",
    "MESSAGES",
    "NET",
    "OUTPUT",
    "BatchSize",
    "DType",
    "DataDir",
    "DegradationOption",
    "Device",
    "Download",
    "Engine",
    "Overlap",
    "Threads",
    "Tile",
    "complete_dataset",
    "complete_model",
    "complete_weights",
    "fetch",
    "option",
    "settings_of",
    "use_threads",
    "whole_number",
]


def complete_model(incomplete: str) -> list[str]:
    """Complete to auto, the shipped weights, or a file."""
    names = [name for name in ("auto", *files.shipped()) if name.startswith(incomplete)]
    return names + sorted(glob.glob(f"{glob.escape(incomplete)}*.safetensors"))  # noqa: PTH207


def complete_weights(incomplete: str) -> list[str]:
    """Complete to shipped weights or a file: what is measured has a name."""
    return [name for name in complete_model(incomplete) if name != "auto"]


def complete_dataset(incomplete: str) -> list[str]:
    """Complete to a data set that has a name, or a folder."""
    names = [name for name in ("celeba", "stl10") if name.startswith(incomplete)]
    return names + sorted(glob.glob(f"{glob.escape(incomplete)}*/"))  # noqa: PTH207


DATA, FILES, OUTPUT, NET, MESSAGES = "Data", "Files", "Results", "Network", "Messages"
"""Panels of the help."""


def option(
    panel: str,
    *names: str,
    text: str,
    metavar: str | None = None,
    default: str | bool = True,
    completion: Callable[..., list[str]] | None = None,
    **more: Any,  # noqa: ANN401 - see typer.Option
) -> Any:  # noqa: ANN401 - what typer.Option returns
    """Declare an option; the shell completes to what ``completion`` returns, or ``metavar`` says.

    ``default`` is what the help has for one that the signature does not say.
    """
    words = [word for word in (metavar or "").split("|") if word.islower()]
    return typer.Option(
        *names,
        help=text,
        metavar=metavar,
        show_default=default,
        autocompletion=completion or ((lambda: words) if words else None),
        rich_help_panel=panel,
        **more,
    )


# What more than one command asks for.
Tile = Annotated[
    str,
    option(
        NET,
        "--tile",
        "-t",
        text="Patch size in output pixels, a multiple of the net's stride; auto is 120, "
        "neighbouring patches fused.",
        metavar="N|auto",
    ),
]
Overlap = Annotated[
    str,
    option(
        NET,
        text="Context around a patch in output pixels; auto keeps seams within one level of 255.",
        metavar="N|auto",
    ),
]
BatchSize = Annotated[str, option(NET, text="Patches per forward pass.", metavar="N|auto")]
Device = Annotated[
    str,
    option(
        NET,
        text="auto is CUDA if there is any.",
        metavar="auto|cpu|cuda[:N]|mps|xpu",
        completion=lambda: ["auto", "cpu", "cuda", "mps", "xpu"],
    ),
]
Engine = Annotated[
    Literal["auto", "torch", "openvino"],
    option(NET, text="What runs the net; auto is what is measured to be faster."),
]
DType = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "int8"],
    option(NET, text="auto is bf16 where the hardware computes in it, else fp32."),
]
DataDir = Annotated[
    Path | None,
    option(
        DATA,
        text="Where celeba and stl10 are: their own folder or the one above.",
        metavar="DIR",
        default="data",
    ),
]
Download = Annotated[
    bool, option(DATA, "--download", text="Fetch celeba and stl10 into --data-dir first.")
]

DEGRADATION = (
    "How LR is made of HR: bicubic, or ranges such as blur=0.2..1.5,noise=0..10,jpeg=30..95 "
    "around it; kernel=any, or some of bicubic+bilinear+area+lanczos+cubic, draws the filter that "
    "reduces; clean=0.2 leaves that share of the samples undegraded."
)
"""What ``--degradation`` means, wherever its default comes from."""

DegradationOption = Annotated[
    str | None, option(DATA, text=DEGRADATION, metavar="TEXT", default="bicubic")
]
Threads = Annotated[
    int | None,
    option(NET, text="CPU threads of the net.", metavar="N", default="every core", min=1, max=1024),
]


def fetch(datasets: tuple[str, ...], data_dir: Path, *, quiet: bool) -> None:
    """Download the data sets that have a name, in one process of each machine."""
    from srcli.data import downloads
    from srcli.data.sources import DATASETS, parse

    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    for name in dict.fromkeys(parse(text)[0] for text in datasets):
        if name in DATASETS:
            downloads.download(name, data_dir / name, quiet=quiet or not sys.stderr.isatty())


def settings_of(
    tile: str,
    overlap: str,
    batch_size: str,
    *,
    device: str,
    dtype: str,
    engine: str,
    tta: bool = False,
    sharpness: float | None = None,
) -> "Settings":
    """Return the options of the network as settings of an upscaler."""
    from srcli.upscaler import Settings

    return Settings(
        tta=tta,
        sharpness=sharpness,
        device=device,
        dtype=dtype,
        engine=engine,
        tile=whole_number("--tile", tile),
        overlap=whole_number("--overlap", overlap),
        batch_size=whole_number("--batch-size", batch_size),
    )


def whole_number(option: str, text: str) -> int | None:
    """Parse a whole number; ``auto`` is None."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{option} must be a whole number or auto, not {text!r}") from None


def use_threads(count: int | None) -> None:
    """Let torch use so many CPU threads; None: all cores."""
    if count is not None:
        import torch

        torch.set_num_threads(count)
