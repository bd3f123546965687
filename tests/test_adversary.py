"""What ``sharp`` adds to a run: the discriminator, the features, and what they give to the net."""

from itertools import pairwise

import pytest
import torch
from run_files import refusal
from safetensors.torch import load_file, save_file

from srcli.errors import DataError, TrainingError
from srcli.ops.devices import on_device
from srcli.training import adversary
from srcli.training.adversary import Adversary, SpectralConvolution
from srcli.training.distributed import ProcessGroup
from srcli.training.losses import _NAMES, _WIDTHS, Features, excess, lattice
from srcli.training.trainer import train

CPU = torch.device("cpu")
GROUP = ProcessGroup(CPU)
SHARP = {
    "loss": "l1",
    "adversarial": 0.1,
    "perceptual": 0.5,
    "spectrum": 0.2,
    "optimizer": "adam",
}

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="session")
def features_file(tmp_path_factory):
    """VGG16's shapes with random weights, which keep the size of what goes through them."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, (inputs, outputs) in zip(_NAMES, pairwise(_WIDTHS), strict=True):
        filters = torch.randn(outputs, inputs, 3, 3, generator=generator)
        tensors[f"{name}.weight"] = filters * (2 / (inputs * 9)) ** 0.5
        tensors[f"{name}.bias"] = torch.zeros(outputs)
    path = tmp_path_factory.mktemp("features") / "vgg16.safetensors"
    save_file(tensors, path)
    return path


def test_the_spectral_norm_of_its_convolutions_is_one():
    """As computed by a singular value decomposition, after the weights have moved."""
    convolution = SpectralConvolution(8, 16, 3)
    with torch.no_grad():
        convolution.weight.mul_(7).add_(0.1)
    for _ in range(30):
        convolution.iterate()

    matrix = convolution(torch.eye(8 * 9).reshape(-1, 8, 3, 3))[:, :, 1, 1].detach()

    assert float(torch.linalg.svdvals(matrix)[0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("with_file", "step", "weight"), [(True, 2000, 0.1), (False, 0, 0.1 / 3)])
def test_neither_descends_on_the_loss_of_the_other(options, features_file, with_file, step, weight):
    """The gradients of the one scalar are those of each part, for its own net alone."""
    config = options(**SHARP, features=features_file if with_file else None)
    one = Adversary(config, GROUP, lambda _: None)
    one.begin(step)
    output, target = torch.rand(2, 2, 3, 120, 120)
    output.requires_grad_()
    total, parts = one.measure(output, target, [3.0, 3.0])
    weights = list(one.discriminator.parameters())

    grid = 10 * lattice(output, target, [3.0, 3.0]) + 0.2 * excess(output, target, [3.0, 3.0])
    generators = 0.5 * parts["features"] + weight * parts["adversarial"] + grid
    options_ = {"retain_graph": True, "allow_unused": True}
    for_output, *for_weights = torch.autograd.grad(total, [output, *weights], **options_)
    (wanted,) = torch.autograd.grad(generators, [output], **options_)
    own = torch.autograd.grad(parts["discriminator"], weights, **options_)

    # Single numbers are smaller than what assert_close lets pass.
    assert (for_output - wanted).norm() < 1e-4 * wanted.norm()
    for found, expected in zip(for_weights, own, strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.autograd.grad(parts["discriminator"], [output], **options_) == (None,)
    before = [weight.detach().clone() for weight in weights]
    total.backward()
    one.step(1e-3)
    for new, old, gradient in zip(weights, before, own, strict=True):
        assert ((new - old) * gradient).sum() < 0, "it descends"


def test_a_lattice_costs_and_other_texture_does_not():
    """Dots at the corners of the cells, against errors that lie anywhere."""
    target = torch.rand(2, 3, 120, 120)
    dots, anywhere = target.clone(), target.clone()
    dots[0, :, ::4, ::4] += 0.05
    anywhere[0].view(3, -1)[:, torch.randperm(14400)[:900]] += 0.1 * torch.rand(900) - 0.05

    found, chance = (float(lattice(one, target, [4.0, 3.0])) for one in (dots, anywhere))

    # One place of sixteen is 0.05 too bright in one patch of two.
    assert found == pytest.approx((0.05**2 + 0.002**2) ** 0.5 / 32 - 0.002 / 32, rel=0.01)
    assert chance < found / 10
    assert lattice(dots, target, [2.5, 7.0]) == 0
    sparse = target.clone()
    sparse[:, :, ::8, ::8] += 0.05  # the grid of the net's lower level at x4
    assert lattice(sparse, target, [4.0, 4.0]) > chance


@pytest.mark.parametrize(("scale", "cell"), [(2.0, 2), (3.0, 3), (4.0, 4), (3.0, 6), (4.0, 8)])
def test_dots_that_have_no_mean_stand_out_of_the_spectrum(scale, cell):
    """A net of dots, bright in one half and dark in the other; noise of that strength does not."""
    target = torch.rand(1, 3, 120, 120)
    dots = target.clone()
    dots[..., :60, ::cell] += 0.3
    dots[..., 60:, ::cell] -= 0.3
    noise = target + 0.3 * torch.randn(1, 1, 120, 120)

    found, chance = (float(excess(one, target, [scale])) for one in (dots, noise))

    assert found > 0.5
    assert chance < found / 2
    assert excess(target, target, [scale]) == 0


def test_the_log_has_each_loss(options, saved_run):
    """Columns for the parts, and a line that says what is matched without a file of features."""
    messages = []
    train(options(steps=2, **SHARP), on_message=messages.append)

    row = saved_run(options().output).log[-1]
    assert all(float(row[name]) > 0 for name in ("features", "adversarial", "discriminator"))
    assert [line for line in messages if "there is no --features file" in line]


def test_a_discriminator_that_knows_everything_ends_the_run(options, monkeypatch, saved_run):
    """Its last checkpoint stays, and the way out is named."""
    monkeypatch.setattr(adversary, "_SETTLING_STEPS", 2)
    monkeypatch.setattr(adversary, "_COLLAPSED", 10.0)
    config = options(**SHARP, steps=9, save_every=2, eval_every=3)

    found = refusal(lambda: train(config), TrainingError)

    assert "collapsed at step 3" in found
    assert "a lower --set adversarial than 0.1" in found
    assert saved_run(config.output).newest.name == "step-00000002.safetensors"


def test_features_are_those_of_vgg16(features_file):
    """Convolutions and pooling as torch's own modules compute them, before the ReLU."""
    tensors = Features(features_file, CPU)
    layers = []
    for name, convolution in tensors.named_children():
        if name.endswith("_1") and name != "conv1_1":
            layers.append(torch.nn.MaxPool2d(2))
        layers += [convolution, torch.nn.ReLU()]
    net = on_device(torch.nn.Sequential(*layers[:-1]), CPU)
    image = torch.rand(1, 3, 24, 24)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]

    found = tensors(image)

    assert list(found) == ["conv1_2", "conv2_2", "conv3_3", "conv4_3"]
    torch.testing.assert_close(found["conv4_3"], net((image - mean) / deviation))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("conv3_2.bias"), 'Missing key(s) in state_dict: "conv3_2.bias"'),
        (lambda t: t.update({"conv1_1.weight": torch.rand(64, 1, 3, 3)}), "size mismatch for conv"),
        (lambda t: t["conv4_3.weight"].fill_(torch.nan), "a value is not finite"),
        (None, "cannot read weights "),
    ],
    ids=["missing", "shape", "nan", "pickle"],
)
def test_a_file_of_other_features_is_refused(features_file, tmp_path, change, message):
    """What is wrong, and the way out, in one line; of a pickle nothing is run."""
    path = tmp_path / "other.safetensors"
    path.write_bytes(b"\x80\x04}q\x00.")
    if change:
        tensors = load_file(features_file)
        change(tensors)
        save_file(tensors, path)

    found = refusal(lambda: Features(path, CPU), DataError)
    assert found.startswith(f"--features {path}: ")
    assert message in found
    assert "benchmarks/vgg16_features.py" in found
