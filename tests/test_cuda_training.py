"""Training on a GPU follows training on the CPU; run with ``pytest -m cuda`` where there is one."""

import pytest
import torch

from srcli.ops.degradation import Degradation
from srcli.training.run_directory import RunDirectory
from srcli.training.trainer import train

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def make(options):
    """Return a function that makes options of twelve steps with every part of the degradation."""
    degradation = Degradation.parse("blur=0..1,noise=0..5,jpeg=50..95")
    values = {"degradation": degradation, "loss": "fourier", "steps": 12, "eval_every": 4}
    return lambda name, **changes: options(name, **(values | {"device": "cuda"} | changes))


def curve(config):
    """The losses of a run's log, training and evaluation."""
    rows = RunDirectory(config.output).rows()
    return torch.tensor([(row["loss"], row.get("eval_loss", 0.0)) for row in rows])


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_the_curve_is_the_cpus(make, dtype, tolerance):
    """The same seed draws the same patches on a GPU, and the loss falls along the same way."""
    cpu, cuda = make("cpu", device="cpu"), make("cuda", dtype=dtype)
    train(cpu)
    train(cuda)

    torch.testing.assert_close(curve(cuda), curve(cpu), rtol=tolerance, atol=1e-5)


def test_a_run_on_a_gpu_can_be_resumed(make):
    """Stopped after five steps and resumed, the curve is that of a run never stopped."""
    whole, parted = make("whole"), make("parted")
    train(whole)
    steps = iter(range(100))

    train(parted, should_stop=lambda: next(steps) == 4)
    report = train(parted, resume=True)

    assert (report.step, report.finished) == (12, True)
    torch.testing.assert_close(curve(parted), curve(whole), rtol=1e-4, atol=1e-6)
