"""``srcli train``: weights out of images."""

import json
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from tqdm import tqdm

from srcli.data.choices import Augmentation, Splitting
from srcli.errors import Interrupted, UsageError
from srcli.model.config import CONFIGS, Join, ModelConfig
from srcli.ops.degradation import Degradation
from srcli.training.config import (
    CHANGEABLE,
    RECIPES,
    Loss,
    OptimizerName,
    Schedule,
    TrainConfig,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from srcli.training.trainer import Plan, Progress, TrainReport


from srcli.cli.console import format_duration, reporting, say, signals
from srcli.cli.options import (
    DataDir,
    DegradationOption,
    Download,
    Threads,
    fetch,
    use_threads,
)

__all__ = ["TRAIN_HELP", "train"]

TRAIN_HELP = (
    "Train a net on CelebA, STL-10 or folders of images, or continue a run.\n\n"
    "[bold]srcli train --dataset celeba --dataset stl10 --download[/]  # the source paper\n\n"
    "[bold]srcli train --dataset photos --scale 2 --scale 3 --scale 3 --scale 4 --max-time 90m[/]  "
    "# one net for three factors, x3 most often\n\n"
    "[bold]torchrun --standalone --nproc-per-node 2 -m srcli train ...[/]  # two processes\n\n"
    "[bold]srcli train --resume runs/base[/]  # goes on where the last checkpoint left it"
)


def _recipe_default(name: str) -> str:
    """Show an option's default, and where the paper's recipe has another one."""
    base = next(field.default for field in fields(TrainConfig) if field.name == name)
    paper = RECIPES["paper"].get(name, base)
    return f"{base}" if paper == base else f"{base}; {paper} for paper"


@reporting()
def train(
    *,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            help="celeba, stl10, either with :part (celeba:train,valid; stl10:test), or a folder "
            "of HR images, read recursively; repeat for a union.",
            metavar="NAME|DIR",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Run directory; made if missing.", show_default="runs/RECIPE"
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Where the defaults below come from: base, photo (base on degraded images), or "
            "paper (the source paper's).",
            show_default="paper if every data set has a name, else base",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="Shape of the net: base, paper, or a JSON file.", show_default="recipe"),
    ] = None,
    join: Annotated[
        Join | None,
        typer.Option(
            help="Where skips join: before, first or last unit of a decoder level.",
            show_default="the configuration's",
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            help="Scale factor to train for; repeat for more, or to weigh one.",
            show_default="2, 3, 3, 4; 3 for paper",
        ),
    ] = None,
    degradation: DegradationOption = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run in steps.")] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            help="Length of the run in epochs: one patch of every image.",
            show_default="10 for paper",
        ),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Stop after this long (90m, 1.5h, 600s). Without --steps and --epochs the "
            "learning rate is scheduled over it."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Patches per step and process.", show_default=_recipe_default("batch_size")
        ),
    ] = None,
    optimizer: Annotated[
        OptimizerName | None,
        typer.Option(
            help="muon (for the inner convolutions, Adam for the rest) or adam.",
            show_default=_recipe_default("optimizer"),
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Adam's peak learning rate; Muon's is twice that.",
            show_default=_recipe_default("lr"),
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Share of Muon's weights that a step takes away, per unit of its rate.",
            show_default=_recipe_default("weight_decay"),
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(help="Steps in which it rises.", show_default=_recipe_default("warmup")),
    ] = None,
    schedule: Annotated[
        Schedule | None,
        typer.Option(
            help="How it goes on: cosine (to zero) or constant.",
            show_default=_recipe_default("schedule"),
        ),
    ] = None,
    loss: Annotated[
        Loss | None,
        typer.Option(help="l1, mse, charbonnier or fourier.", show_default=_recipe_default("loss")),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Largest gradient norm; 0 for no bound.", show_default=_recipe_default("clip")
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Decay of the weights' moving average; 0 for none.",
            show_default=_recipe_default("ema"),
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the weights and of every draw.", show_default="0")
    ] = None,
    split: Annotated[
        Splitting | None,
        typer.Option(
            help="held-out: one image in fifty for evaluation. paper: 4,000 test, 86,799 "
            "training, 211,800 evaluation, or the same shares.",
            show_default=_recipe_default("split"),
        ),
    ] = None,
    augment: Annotated[
        Augmentation | None,
        typer.Option(
            help="Flips and quarter turns of patches: turn (all eight), mirror (left and right "
            "alone, for what stands upright, as faces) or none.",
            show_default=_recipe_default("augment"),
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most so many images.")] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from, a name or a file; the net has their shape, which "
            "--config must fit where it is given."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue the run in this directory, with its own options.", metavar="RUN_DIR"
        ),
    ] = None,
    eval_images: Annotated[
        int | None,
        typer.Option(help="Evaluate on at most so many images.", show_default="64; all for paper"),
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option(help="Steps between evaluations.", show_default="500; an epoch for paper"),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(help="Steps between checkpoints.", show_default=_recipe_default("save_every")),
    ] = None,
    keep_last: Annotated[
        int | None,
        typer.Option(help="Checkpoints that are kept.", show_default=_recipe_default("keep_last")),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Threads that decode images.", show_default="one for each core"),
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Compile the net by torch.compile first."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="auto, fp32 or bf16.", show_default="auto")
    ] = None,
    threads: Threads = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            "-n",
            help="Print what would be done and how long it would take; write nothing.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for each evaluation.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bar, no summary.")] = False,
) -> None:
    """Train a net, or continue a run."""
    from srcli.model.weights import resolve
    from srcli.training import trainer as training

    use_threads(threads)
    given = _given(
        {
            "datasets": tuple(dataset) if dataset else None,
            "data_dir": data_dir and data_dir.absolute(),
            "output": output,
            "recipe": _recipe(recipe),
            "model": _model_config(config),
            "join": join,
            "scales": tuple(scale) if scale else None,
            "degradation": None if degradation is None else Degradation.parse(degradation),
            "steps": steps,
            "epochs": epochs,
            "max_seconds": None if max_time is None else _seconds(max_time),
            "batch_size": batch_size,
            "optimizer": optimizer,
            "lr": lr,
            "warmup": warmup,
            "weight_decay": weight_decay,
            "schedule": schedule,
            "loss": loss,
            "clip": clip,
            "ema": ema,
            "seed": seed,
            "split": split,
            "augment": augment,
            "limit": limit,
            "init_from": None if init_from is None else resolve(init_from).absolute(),
            "eval_images": eval_images,
            "eval_every": eval_every,
            "save_every": save_every,
            "keep_last": keep_last,
            "workers": workers,
            "compile": compile_ or None,
            "device": device,
            "dtype": dtype,
        }
    )
    settings = _settled(resume, given)
    if download:
        fetch(settings.datasets, settings.data_dir, quiet=quiet)
    leads = os.environ.get("RANK", "0") == "0"
    if dry_run:
        plan = training.dry_run(
            settings,
            resume=resume is not None,
            on_message=lambda line: say(f"warning: {line}"),
        )
        if leads:
            typer.echo(json.dumps(asdict(plan), indent=2) if as_json else _plan_lines(plan))
        return
    shown = leads and not quiet and sys.stderr.isatty()
    with (
        _training_bar(shown=shown, verbose=verbose and leads) as (show, tell),
        signals() as received,
    ):
        report = training.train(
            settings,
            resume=resume is not None,
            on_progress=show,
            on_message=lambda line: tell(f"warning: {line}"),
            should_stop=lambda: bool(received),
        )
    if as_json and leads:
        typer.echo(json.dumps(asdict(report), indent=2, allow_nan=False))
    if received or report.stopped:
        # Of several processes only another one may have had the signal.
        number = received[0] if received else int(signal.SIGTERM)
        if not leads:
            raise typer.Exit(128 + number)
        raise Interrupted(
            f"interrupted at step {report.step}; continue with: "
            f"srcli train --resume {settings.output}",
            number,
        )
    if not quiet and leads:
        say(_training_summary(report))


def _recipe(name: str | None) -> str | None:
    """Refuse a recipe that there is not."""
    if name is not None and name not in RECIPES:
        raise UsageError(f"--recipe must be one of {', '.join(RECIPES)}, not {name!r}")
    return name


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Keep the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _settled(resume: Path | None, given: dict[str, Any]) -> TrainConfig:
    """Settle a new run's options by its recipe, or a resumed run's by its own."""
    from srcli.data.sources import DATASETS, absolute, parse
    from srcli.model.weights import read_header
    from srcli.training.run_directory import load_options

    if resume is not None:
        if "datasets" in given:
            given["datasets"] = tuple(map(absolute, given["datasets"]))
        return _unchanged(load_options(resume), resume, {"output": resume, **given})
    names = [parse(name)[0] for name in given.get("datasets", ())]
    known = bool(names) and all(name in DATASETS for name in names)
    recipe = given.get("recipe", "paper" if known else "base")
    defaults = {"datasets": (), "output": Path("runs") / recipe, **RECIPES[recipe]}
    if "init_from" in given and "model" not in given:
        given["model"] = read_header(given["init_from"]).config
    if "steps" in given:
        defaults.pop("epochs", None)
    join = given.pop("join", None)
    config = TrainConfig(**{**defaults, **given, "recipe": recipe})
    return config if join is None else replace(config, model=replace(config.model, join=join))


def _unchanged(config: TrainConfig, resume: Path, given: dict[str, Any]) -> TrainConfig:
    """Let a resumed run have otherwise what does not change it, and refuse the rest."""
    if given["output"].absolute() != resume.absolute():
        raise UsageError(
            f"--output {given['output']} is not the run directory {resume}: give --resume without "
            "it; the directory may be moved before"
        )
    for name, value in given.items():
        before = config.model.join if name == "join" else getattr(config, name)
        if name not in CHANGEABLE and value != before:
            option = _OPTION_OF.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(
                f"{option} would change the run in {resume}, which was begun with "
                f"{_shown(before)}: give --resume without it, or start another run"
            )
    kept = CHANGEABLE & given.keys()
    return replace(config, **{name: given[name] for name in kept})


_OPTION_OF = {
    "datasets": "--dataset",
    "model": "--config",
    "scales": "--scale",
    "max_seconds": "--max-time",
}
"""How the fields are called whose option has another name."""


def _shown(value: object) -> str:
    match value:
        case None | ():
            return "no such option"
        case tuple():
            return ", ".join(str(item) for item in value)
        case ModelConfig():
            names = [name for name, known in CONFIGS.items() if known == value]
            return names[0] if names else "another net"
        case _:
            return str(value)


def _plan_lines(plan: "Plan") -> str:
    """Say in a few lines what a run would do."""
    patches = "" if plan.patches is None else f", {plan.patches:,} patches"
    steps = "until the time is over" if plan.steps is None else f"{plan.steps:,} steps{patches}"
    held = f"{plan.evaluation_images:,} of {plan.held_images:,}"
    kept = "kept decoded in memory" if plan.resident else "decoded as they are needed"
    memory = "" if plan.memory is None else f", {plan.memory / 2**30:.2f} GiB in use at most"
    where = f"{plan.dtype} on {plan.device}"
    where += f", {plan.processes} processes" if plan.processes > 1 else ""
    return "\n".join(
        [
            f"images       {plan.train_images:,} for training, {kept}",
            f"             {held} for evaluation, {plan.test_images:,} for test",
            f"net          {plan.parameters:,} parameters, {plan.gmac_per_patch:.2f} GMAC a patch",
            f"length       {steps}; {plan.steps_per_epoch:,} steps of {plan.batch} an epoch",
            f"measured     {plan.patches_per_second:.1f} patches/s in {where}{memory}",
            f"time         {format_duration(plan.seconds)}",
        ]
    )


def _training_summary(report: "TrainReport") -> str:
    text = f"{report.weights}: {report.step} steps, {report.patches} patches in "
    text += f"{report.seconds / 60:.1f} min"
    if report.loss is not None:  # a run that was finished before has none
        text += f" ({report.waited:.1%} of it waiting for images), loss {report.loss:.5f}"
    if report.scores is not None:
        text += (
            f", held-out RGB PSNR {report.scores.psnr:.2f} dB "
            f"(bicubic {report.scores.baseline_psnr:.2f})"
        )
    return text


@contextmanager
def _training_bar(*, shown: bool, verbose: bool) -> "Iterator[tuple[Any, Any]]":
    """A bar over a run's share done, if shown; a line for each evaluation, if verbose.

    Yields:
        What takes the run's progress, and what prints a line above the bar.
    """
    with tqdm(
        total=1000,
        disable=not shown,
        bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
    ) as bar:
        last = None

        def tell(text: str) -> None:
            bar.clear()
            say(text)

        def show(progress: "Progress") -> None:
            nonlocal last
            scores = progress.scores
            if verbose and scores is not None and scores is not last:
                tell(
                    f"step {progress.step}, epoch {progress.epoch:.2f}: loss {progress.loss:.5f}, "
                    f"evaluation {scores.loss:.5f}, accuracy {scores.accuracy:.2%}, "
                    f"{scores.psnr:.2f} dB (bicubic {scores.baseline_psnr:.2f})"
                )
            last = scores
            bar.n = int(progress.done * 1000)
            text = "" if scores is None else f", eval {scores.psnr:.2f} dB"
            bar.set_postfix_str(
                f"step {progress.step}, loss {progress.loss:.4f}{text}", refresh=False
            )
            bar.update(0)

        yield show, tell


def _model_config(name: str | None) -> ModelConfig | None:
    if name is None:
        return None
    if name in CONFIGS:
        return CONFIGS[name]
    path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(CONFIGS))
        raise UsageError(f"--config {name} is neither a name ({known}) nor a file")
    try:
        return ModelConfig.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UsageError) as error:
        raise UsageError(f"--config {name}: {error}; give base, paper or a JSON file") from error


def _seconds(text: str) -> float:
    """Read ``90m``, ``1.5h``, ``600s`` or ``600``."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise UsageError(f"--max-time {text!r} is not a time: write 90m, 1.5h or 600s") from None
