"""How a step is computed: threads that share a batch, and processes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from srcli.errors import DeviceError
from srcli.training import trainer
from srcli.training.compute import uses_every_weight
from srcli.training.trainer import train

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def cores():
    """Return a function that sets the CPU threads of torch; they are one again afterwards."""
    yield torch.set_num_threads
    torch.set_num_threads(1)


def cores_of_a_thread():
    """Count the CPU threads that torch uses in a thread that has just begun."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(torch.get_num_threads).result()


@pytest.mark.parametrize(
    ("changes", "loose"),
    [
        ({"loss": "fourier"}, 1),
        ({"loss": "l1", "dtype": "bf16"}, 30),
        ({"loss": "l1", "adversarial": 0.1, "perceptual": 0.5}, 10),
    ],
    ids=str,
)
def test_threads_that_share_a_batch_learn_the_same(options, saved_run, cores, changes, loose):
    """Splitting a batch changes the last bits alone, and the same threads give the same bits."""
    reports, states = [], []
    for name, count in (("one", 1), ("two", 2), ("three", 3), ("again", 3)):
        cores(count)
        values = {"scales": (2.0, 3.0), "optimizer": "adam", "batch_size": 5, "steps": 2}
        config = options(name, **(values | changes))
        reports.append(train(config))
        states.append(saved_run(config.output).state)
        assert cores_of_a_thread() == torch.get_num_threads() == count

    assert all(torch.equal(value, states[3][name]) for name, value in states[2].items())
    for report, state in zip(reports[1:], states[1:], strict=True):
        assert report.loss == pytest.approx(reports[0].loss, rel=loose * 1e-4)
        assert report.accuracy == pytest.approx(reports[0].accuracy, abs=loose * 1e-4)
        moments = [name for name in states[0] if name.endswith("exp_avg")]
        assert moments
        for name in moments:
            distance = torch.linalg.norm(states[0][name] - state[name])
            assert distance <= loose * 1e-3 * torch.linalg.norm(states[0][name]), name
    assert not any(one.name.startswith("srcli-step") for one in threading.enumerate())


def test_what_goes_wrong_in_a_thread_is_reported(options, monkeypatch, cores):
    """A lack of memory there ends the run as it does elsewhere, and the threads are gone."""
    cores(2)

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trainer, "input_and_target", full)
    with pytest.raises(DeviceError, match="out of memory"):
        train(options())
    assert cores_of_a_thread() == torch.get_num_threads() == 2
    assert not any(one.name.startswith("srcli-step") for one in threading.enumerate())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_size": 2}, True),
        ({"batch_size": 1}, False),  # a process has one of the two factors
        ({"scales": (3.0,)}, False),  # nobody takes the path of x2
    ],
    ids=str,
)
def test_processes_look_for_unused_weights_only_where_there_may_be_some(options, changes, expected):
    """Looking takes a while each step, and where there are none PyTorch warns."""
    assert uses_every_weight(options(**({"scales": (2.0, 3.0)} | changes))) is expected
