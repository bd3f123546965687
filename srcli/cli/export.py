"""``srcli export``: weights as an ONNX file for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from srcli import files
from srcli.cli.console import check_output, say, write_output
from srcli.cli.options import complete_weights
from srcli.errors import UsageError, WeightsError, require_package

__all__ = ["export"]

_TOLERANCE = 1e-4
"""The largest difference from srcli's own result in fp32; a level of 8 bits is 4e-3."""


def export(
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Shipped weights by name, or a .safetensors file.",
            metavar="NAME|FILE",
            autocompletion=complete_weights,
        ),
    ] = "base",
    scale: Annotated[
        float,
        typer.Option("--scale", "-s", help="Factor that they were trained for.", metavar="N"),
    ] = 3,
    sharpness: Annotated[
        float | None,
        typer.Option(
            help="Mix them with their sharp sibling: 0 (faithful) to 1 (crisp).",
            metavar="F",
            show_default="as they are",
            min=0,
            max=1,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The .onnx file; one that is there is replaced.",
            metavar="FILE",
            show_default="NAME_xN.onnx",
        ),
    ] = None,
) -> None:
    """Write an ONNX file that enlarges pictures of any size by one factor.

    The graph takes lr, 1x3xHxW float32 RGB in [0, 1], and gives hr, 1x3x(N*H)x(N*W), not clamped.
    ONNX Runtime's results are compared with srcli's first.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_package(package, "export", "srcli export")
    path = output or Path(f"{Path(model).stem}_x{scale:g}.onnx")
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"--output {path} must end in .onnx")
    check_output(path)
    from srcli import exporting
    from srcli.model.sharpness import load_mixed
    from srcli.model.weights import load, resolve

    file = resolve(model)
    net, header = load(file) if sharpness is None else load_mixed(file, sharpness)
    whole = _whole_factor(scale, header.scales, model)
    content = exporting.to_onnx(net, whole, _metadata(file, whole, sharpness))
    largest = exporting.largest_difference(content, net, whole)
    if not largest <= _TOLERANCE:
        raise WeightsError(
            f"ONNX Runtime's result differs from srcli's by {largest:.2g}, more than "
            f"{_TOLERANCE:g}: nothing is written; try another version of torch or onnxruntime"
        )
    write_output(path, content)
    say(
        f"{path}  {exporting.INPUT} 1x3xHxW -> {exporting.OUTPUT} 1x3x{whole}Hx{whole}W, "
        f"opset {exporting.OPSET}, within {max(largest, 1e-9):.0e} of srcli at three sizes"
    )


def _whole_factor(scale: float, known: tuple[float, ...], model: str) -> int:
    whole = [str(int(one)) for one in known if one == int(one)]
    if f"{scale:g}" not in whole:
        factors = " or ".join(whole) or "no factor"
        raise UsageError(f"--scale {scale:g}: {model} can be exported for {factors}; give that")
    return int(scale)


def _metadata(path: Path, scale: int, sharpness: float | None) -> dict[str, str]:
    licence = "that of whoever trained the weights"
    if path in files.shipped().values():
        licence = (
            "MIT (srcli); docs/models says what is known of the licences of the pictures that the "
            "weights learned from, and whether they are cleared for paid work"
        )
    mixed = {} if sharpness is None else {"sharpness": f"{sharpness:g}"}
    return {"model": path.stem, "scale": str(scale), **mixed, "licence": licence}
