"""Training on a GPU follows training on the CPU; run with ``pytest -m cuda`` where there is one."""

import pytest
import torch

from srcli.ops.degradation import Degradation
from srcli.training.config import TrainConfig
from srcli.training.run_directory import RunDirectory
from srcli.training.trainer import train

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def config(image_folder, tiny_config, output, **options):
    """Twelve steps with every part of the degradation."""
    return TrainConfig(
        **{
            "output": output,
            "datasets": (str(image_folder),),
            "model": tiny_config,
            "degradation": Degradation.parse("blur=0..1,noise=0..5,jpeg=50..95"),
            "batch_size": 4,
            "steps": 12,
            "warmup": 2,
            "eval_every": 4,
            "dtype": "fp32",
            "device": "cuda",
            **options,
        }
    )


def curve(output):
    """The losses of a run's log, training and evaluation."""
    rows = RunDirectory(output).rows()
    return torch.tensor(
        [(row["loss"], row.get("eval_loss", 0)) for row in rows], dtype=torch.float64
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_the_curve_is_the_cpus(image_folder, tiny_config, tmp_path, dtype, tolerance):
    """The same seed draws the same patches on a GPU, and the loss falls along the same way."""
    train(config(image_folder, tiny_config, tmp_path / "cpu", device="cpu"))
    train(config(image_folder, tiny_config, tmp_path / "cuda", dtype=dtype))

    torch.testing.assert_close(
        curve(tmp_path / "cuda"), curve(tmp_path / "cpu"), rtol=tolerance, atol=1e-5
    )


def test_a_run_on_a_gpu_can_be_resumed(image_folder, tiny_config, tmp_path):
    """Stopped after five steps and resumed, the curve is that of a run never stopped."""
    whole = config(image_folder, tiny_config, tmp_path / "whole")
    parted = config(image_folder, tiny_config, tmp_path / "parted")
    train(whole)
    steps = iter(range(100))

    train(parted, should_stop=lambda: next(steps) == 4)
    report = train(parted, resume=True)

    assert (report.step, report.finished) == (12, True)
    torch.testing.assert_close(
        curve(tmp_path / "parted"), curve(tmp_path / "whole"), rtol=1e-4, atol=1e-6
    )
