"""The network: the paper's to the parameter, the default within its budget."""

import dataclasses
import json
import math

import pytest
import torch
from torch.nn import functional

from srcli.errors import UsageError
from srcli.model.config import BASE, PAPER, ModelConfig, ScalePath
from srcli.model.network import ResidualAutoencoder, in_dtype, multiply_adds, parameter_count

PAPER_LAYERS = {
    "encoders.0.0.convolution": (64, 3),
    "encoders.0.1.convolution": (64, 64),
    "encoders.1.0.convolution": (128, 64),
    "encoders.1.1.convolution": (128, 128),
    "bottom.0.convolution": (256, 128),
    "decoders.1.0.convolution": (128, 256),
    "decoders.1.1.convolution": (128, 128),
    "decoders.0.0.convolution": (64, 128),
    "decoders.0.1.convolution": (64, 64),
    "head": (3, 64),
}
"""The paper's convolutions in execution order: channels out and in."""

RESIDUAL = dataclasses.replace(
    BASE,
    stem=2,
    widths=(4, 5, 6),
    encoder=(2, 1),
    bottom=1,
    decoder=(1, 2),
    paths=(),
    symmetric=False,
)

CONVOLUTIONAL = dataclasses.replace(PAPER, stem=2, widths=(4, 5), encoder=(2,), decoder=(1,))

VARIANTS = {
    "residual": RESIDUAL,
    "first": CONVOLUTIONAL,
    "last": dataclasses.replace(PAPER, widths=(4, 5, 6), join="last"),
}
"""Small nets of both kinds, with stems, levels and joins of every kind."""


def path(scale, encoder=2, decoder=2):
    """A path of a net of two levels, with so many units."""
    return ScalePath(scale=scale, encoder=(encoder,), decoder=(decoder,))


PATHED = dataclasses.replace(
    RESIDUAL,
    stem=3,
    widths=(4, 6),
    encoder=(3,),
    decoder=(2,),
    paths=(path(2, 1, 1), path(4, 3, 2)),
)
"""A small net of which two factors have a path of their own."""

named_and_small = pytest.mark.parametrize(
    "config", [PAPER, BASE, *VARIANTS.values()], ids=["paper", "base", *VARIANTS]
)


def picture(height, width, dtype=torch.float32, count=1):
    """Make noise in [0, 1] from the seed of the test."""
    return torch.rand(count, 3, height, width, dtype=dtype)


@torch.no_grad()
def randomised(config, dtype=torch.float32):
    """Build a net all of whose weights and biases are random, the head's too."""
    net = ResidualAutoencoder(config).to(dtype)
    for parameter in net.parameters():
        fan = parameter[0].numel()
        parameter.normal_(std=fan**-0.5 if parameter.ndim > 1 else 0.1)
    return net


def paper_by_hand(values, image, join):
    """Compute the paper's net from its tensors, with the additions written out."""
    names = iter(PAPER_LAYERS)

    def conv(features):
        name = next(names)
        weights = values[f"{name}.weight"], values[f"{name}.bias"]
        return functional.relu(functional.conv2d(features, *weights, padding=1))

    def pool(features):
        return functional.max_pool2d(features, 2)

    def up(features):
        return features.repeat_interleave(2, -1).repeat_interleave(2, -2)

    layer2 = conv(conv(image))
    layer5 = conv(conv(pool(layer2)))
    layer9 = conv(up(conv(pool(layer5))))
    block1 = conv(layer9 + layer5) if join == "first" else conv(layer9) + layer5
    layer13 = conv(up(block1))
    block2 = conv(layer13 + layer2) if join == "first" else conv(layer13) + layer2
    return conv(block2)


@pytest.mark.parametrize(("join", "other"), [("first", "last"), ("last", "first")])
@torch.no_grad()
def test_the_papers_net_by_hand(join, other):
    """Layer 5 is added to layer 9 and layer 2 to layer 13, or each at its block's end."""
    net = randomised(dataclasses.replace(PAPER, join=join))
    values, image = net.state_dict(), picture(20, 28)

    assert {n.removesuffix(".weight"): v.shape[:2] for n, v in values.items() if v.ndim == 4} == (
        PAPER_LAYERS
    )
    assert parameter_count(net.config) == 1_110_403
    assert round(multiply_adds(net.config) / 1e9, 2) == 4.83
    assert torch.equal(net(image), paper_by_hand(values, image, join))
    assert (net(image) - paper_by_hand(values, image, other)).abs().max() > 0.01


def test_base_keeps_within_its_budget():
    """The default net has no more parameters than the paper's and at most 1.5 GMAC a patch."""
    assert parameter_count(BASE) <= parameter_count(PAPER)
    assert all(0 < multiply_adds(BASE.at(scale)) <= 1.5e9 for scale in (2, 3, 4))


def residual_by_hand(values, image):
    """Compute a two-level net of one residual unit each from its tensors."""

    def conv(features, name, **how):
        return functional.conv2d(features, values[f"{name}.weight"], values[f"{name}.bias"], **how)

    def unit(features, name):
        wide = functional.relu(conv(features, f"{name}.expand", padding=1))
        return features + conv(wide, f"{name}.contract", padding=1)

    shallow = conv(functional.pixel_unshuffle(image - 0.5, 3), "stem", padding=1)
    skip = unit(shallow, "encoders.0.0")
    deep = unit(conv(skip, "downs.0", stride=2), "bottom.0")
    joined = functional.pixel_shuffle(conv(deep, "ups.0.0"), 2) + skip
    pixels = conv(unit(joined, "decoders.0.0") + shallow, "head", padding=1)
    return image + functional.pixel_shuffle(pixels, 3)


@torch.no_grad()
def test_a_residual_net_by_hand(tiny_config):
    """The default's small relative computes what is written out here, skip by skip."""
    net = randomised(tiny_config)
    image = picture(18, 30)

    assert torch.equal(net(image), residual_by_hand(net.state_dict(), image))


@named_and_small
def test_a_gradient_reaches_every_parameter(config):
    """Every tensor of weights gets a gradient, so no part of the net lies idle."""
    net = randomised(config)
    scales = [1.5, *(path.scale for path in config.paths)]
    side = math.lcm(4 * config.stride, config.common_stride)
    image = picture(side, side, count=len(scales))
    (net(image, scales) - torch.rand_like(image)).square().mean().backward()

    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def reach(config, axis):
    """Measure how many pixels beyond one stride of output the input still counts."""
    stride, far = config.stride, config.receptive_margin + 2 * config.stride
    shape = [1, 3, stride, stride]
    shape[axis] = 2 * far + stride
    net, used = ResidualAutoencoder(config).double(), torch.zeros(shape[axis], dtype=torch.bool)
    with torch.no_grad():  # weights are positive, so that no ReLU is shut
        for parameter in net.parameters():
            parameter.uniform_(0.5, 1.0).div_(parameter[0].numel())
    for _ in range(3):  # a max-pool uses one of its pixels: several pictures use them all
        image = 0.5 + torch.rand(shape, dtype=torch.float64)
        image.requires_grad_()
        net(image).narrow(axis, far, stride).sum().backward()
        used |= (image.grad != 0).flatten().view(3, *shape[2:]).any(0).any(1 - (axis - 2))
    positions = used.nonzero().flatten().tolist()
    return max(far - positions[0], positions[-1] - (far + stride - 1))


@pytest.mark.parametrize("axis", [2, 3])
@named_and_small
def test_the_receptive_margin_is_no_less_and_little_more_than_needed(config, axis):
    """No pixel beyond it has a gradient, and it is loose by two strides at most."""
    measured = reach(config, axis)

    assert 0 < measured <= config.receptive_margin <= measured + 2 * config.stride


@pytest.mark.parametrize("scale", [2, 3, 4, 2.5])
@torch.no_grad()
def test_a_path_is_the_net_that_its_configuration_tells(scale):
    """``config.at`` builds, alone, what a factor's pictures go through: its ends, its units."""
    net = randomised(PATHED, torch.float64)
    alone = ResidualAutoencoder(PATHED.at(scale)).double()
    path = PATHED.path(scale)
    values = net.state_dict()
    if path is not None:
        for end in ("stem", "head"):
            for kind in ("weight", "bias"):
                values[f"{end}.{kind}"] = values[f"{end}s.{path.scale}.{kind}"]
        for unit in range(path.decoder[0]):
            dropped = PATHED.decoder[0] - path.decoder[0]
            for name in [name for name in values if name.startswith(f"decoders.0.{unit}.")]:
                later = name.replace(f".0.{unit}.", f".0.{unit + dropped}.")
                values[name] = net.state_dict()[later]
    alone.load_state_dict({name: values[name] for name in alone.state_dict()})
    image = picture(48, 24, torch.float64)

    assert torch.allclose(net(image, [scale]), alone(image), rtol=0, atol=1e-12)
    assert torch.equal(net(image, [scale]), net(image)) == (path is None)


@torch.no_grad()
def test_pictures_of_several_scales_go_their_own_ways():
    """A mixed batch is each of its pictures alone, in its place."""
    net = randomised(PATHED)
    scales = [4, 2, 3, 2, 1.7, 4]
    image = picture(24, 48, count=len(scales))

    together = net(image, scales)

    for index, scale in enumerate(scales):
        alone = net(image[index : index + 1], [scale])
        assert torch.allclose(together[index : index + 1], alone, rtol=0, atol=1e-5)
    # To a net without paths all factors are the same.
    paper = randomised(CONVOLUTIONAL)
    assert torch.equal(paper(image, scales), paper(image))


@torch.no_grad()
def test_every_first_convolution_stays_as_it_is():
    """In bf16 the ends that see pixels stay in fp32, those of the paths too."""
    net = in_dtype(randomised(PATHED).eval(), torch.bfloat16)
    kept = {name for name, value in net.named_parameters() if value.dtype == torch.float32}
    image = picture(24, 24, count=2)

    assert {name.split(".")[0] for name in kept} == {"stem", "stems"}
    assert net(image, [2, 4]).dtype == torch.float32


def test_json_names_every_field_in_order():
    """The JSON is an object of the fields by name, sorted, with lists as lists."""
    assert PAPER.to_json() == (
        '{"bottom": 1, "decoder": [2, 2], "down": "max-pool", "encoder": [2, 2], '
        '"join": "first", "output": "relu", "stem": 1, "unit": "convolution", "up": "nearest", '
        '"widths": [64, 128, 256]}'
    )
    paths = json.loads(BASE.to_json())["paths"]
    assert paths[0] == {"scale": 2, "encoder": [2], "decoder": [3]}
    assert ModelConfig.from_json(BASE.to_json()) == BASE


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (PAPER, {"join": "after"}, "^join must be first, last, before, not 'after'"),
        (PAPER, {"widths": (64,)}, r"widths must name at least two levels, not \[64\]"),
        (PAPER, {"widths": (8, 8)}, r"must name 1 levels for widths \[8, 8\], not \[2, 2\] and"),
        (PAPER, {"paths": BASE.paths}, "symmetric and paths need residual units"),
        (PAPER, {"symmetric": 1}, "symmetric must be true or false, not 1"),
        (BASE, {"widths": (8, 12), "paths": ()}, r"multiples of 8, not \[8, 12\]"),
        *(
            (PAPER, changes, r"stem, widths and unit counts must lie in 1\.\.4096")
            for changes in ({"stem": 0}, {"widths": (4097, 8, 8)}, {"decoder": (2, True)})
        ),
        (PAPER, {"stem": 7}, "the stride 28 of stem 7 and 3 levels must divide the patch size 120"),
        (BASE, {"paths": (path(2), path(2, 1, 1))}, r"once and rising, not \[2, 2\]"),
        (BASE, {"paths": (path(1),)}, r"whole scales of 2\.\.8, .* not \[1\]"),
        (BASE, {"paths": (ScalePath(scale=2, encoder=(2, 2), decoder=(2,)),)}, "name 1 levels"),
        (BASE, {"paths": (path(2, 2, 0),)}, r"stem, widths and unit counts must lie in 1\.\.4096"),
        (BASE, {"paths": (path(7),)}, "the stride 14 of stem 7"),
    ],
)
def test_contradictions_are_refused_by_name(config, changes, message):
    """Wrong kinds, lists that do not match, parts and paths that do not fit: each is named."""
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(config, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"surprise": 1},
            r"^a configuration has the fields \['bottom', .*, not \[.*'surprise'",
        ),
        ({"widths": 3}, "^widths must be a list, not 3"),
        (
            {"join": "before"},
            "^a net of join before has .*'output': 'correction'}, not .*'max-pool'",
        ),
        ({"join": [1]}, r"^join must be first, last, before, not \[1\]"),
        ({"up": []}, r"^a net of join first has .*, not .*\[\]"),
        ({"paths": [7]}, r"a path has the fields \['decoder', 'encoder', 'scale'\], not int"),
        ({"paths": [{"scale": 2}]}, r"a path has the fields .* not \['scale'\]"),
    ],
)
def test_what_is_no_configuration_is_refused(changes, message):
    """A header may hold anything; what is missing, unknown or of another kind is named."""
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_json(json.dumps(json.loads(PAPER.to_json()) | changes))
