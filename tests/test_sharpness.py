"""``-m auto`` and ``--sharpness``: which weights a file gets, and how siblings are mixed."""

import dataclasses
import json
from pathlib import Path

import command_runs
import pytest
import torch
from PIL import Image
from torch import nn

from srcli import Settings, Upscaler, files
from srcli.errors import UsageError, WeightsError
from srcli.model import weights
from srcli.model.network import ResidualAutoencoder
from srcli.model.sharpness import load_mixed, siblings
from srcli.training.trainer import train
from srcli.upscaling import nets


def record(name, origin=None):
    """What the header of weights says of their training."""
    return {"scales": [2, 3, 4], "recipe": name, "steps": 7, "origin": origin}


@pytest.fixture
def shipped(tmp_path, monkeypatch, tiny_config):
    """Ship ``base`` and ``photo`` with their sharp siblings, and two files that have none."""
    monkeypatch.chdir(tmp_path)
    base, photo = record("base"), record("photo", origin=record("base of old"))
    records = {
        "base": base,
        "faces": record("faces", origin=base),
        "paper": record("paper"),
        "photo": photo,
        "sharp": record("sharp", origin=base),
        "sharp-photo": record("sharp-photo", origin=record("a first run", origin=photo)),
    }
    shipped = {name: tmp_path / "weights" / f"{name}.safetensors" for name in records}
    (tmp_path / "weights").mkdir()
    for name, path in shipped.items():
        save(path, tiny_config, records[name])
    monkeypatch.setattr(files, "shipped", lambda: shipped)
    return shipped


def save(path, config, training):
    """Write random weights whose correction is not zero."""
    net = ResidualAutoencoder(config)
    for head in (net.head, *net.heads.values()):
        nn.init.normal_(head.weight, std=0.02)
    weights.save(path, net.state_dict(), config, training)


def run(*arguments):
    """Run srcli in fp32 on the CPU."""
    return command_runs.run(*arguments, *command_runs.EXACT)


@pytest.mark.parametrize("pair", [("base", "sharp"), ("photo", "sharp-photo")])
def test_shipped_siblings_find_each_other(shipped, pair):
    """By the record of what a training started from; ``faces`` is no sibling of ``base``."""
    paths = tuple(shipped[name] for name in pair)

    assert [siblings(path) for path in paths] == [paths, paths]


@pytest.mark.usefixtures("undrawn")
def test_a_run_from_shipped_weights_mixes_with_them(shipped, options, same):
    """What ``srcli train --init-from base`` leaves needs no place among the shipped files."""
    config = options(init_from=shipped["base"], steps=1, warmup=1)
    own = Path(train(config).weights)

    assert siblings(own) == (shipped["base"], own)
    assert same(load_mixed(own, 1.0)[0].state_dict(), weights.load(own)[0].state_dict())
    assert not same(load_mixed(own, 0.5)[0].state_dict(), weights.load(own)[0].state_dict())


def test_a_parent_that_has_changed_is_another(shipped, tiny_config):
    """Sharp weights of an older base mix with nothing, and the new one has no sharp sibling."""
    with pytest.raises(WeightsError, match=r"mix faces: .* or give -m base or photo$"):
        siblings(shipped["faces"])
    save(shipped["base"], tiny_config, record("base") | {"steps": 8})

    with pytest.raises(WeightsError, match=r"mix base: .* or give -m photo$"):
        siblings(shipped["base"])
    with pytest.raises(WeightsError, match="mix sharp: it has no sibling"):
        siblings(shipped["sharp"])


def test_weights_are_mixed_linearly_and_exactly_at_both_ends(shipped, tiny_config, same):
    """Either sibling gives the same net; 0 is the faithful file, 1 the sharp one, to the bit."""
    base, sharp = (weights.load(shipped[name])[0].state_dict() for name in ("base", "sharp"))

    for name in ("base", "sharp"):
        none, some, all_ = (load_mixed(shipped[name], s)[0].state_dict() for s in (0.0, 0.3, 1.0))
        torch.testing.assert_close(some, {key: 0.7 * base[key] + 0.3 * sharp[key] for key in base})
        assert same(none, base)
        assert same(all_, sharp)
    with pytest.raises(UsageError, match="give their name or file, not a net"):
        Upscaler(ResidualAutoencoder(tiny_config), settings=Settings(sharpness=0.5))


@pytest.mark.parametrize("both", [True, False])
def test_a_mix_is_symmetric_if_both_are(shipped, tiny_config, both):
    """A sharp sibling may be trained on without the symmetry; another shape is refused."""
    symmetric = dataclasses.replace(tiny_config, widths=(8, 16), symmetric=True)
    own = dataclasses.replace(symmetric, symmetric=both)
    save(shipped["base"], symmetric, record("base"))
    save(shipped["sharp"], own, record("sharp", origin=record("base")))

    net, header = load_mixed(shipped["base"], 0.5)

    assert net.config == header.config == own
    save(shipped["sharp"], tiny_config, record("sharp", origin=record("base")))
    with pytest.raises(WeightsError, match=r"sharp\.safetensors has another shape than .*base"):
        load_mixed(shipped["base"], 0.5)


@pytest.fixture
def desk(shipped, photo):
    """A clean picture and a degraded one in the working directory."""
    folder, small = shipped["base"].parents[1], Image.fromarray(photo[:24, :40])
    small.save(folder / "a.png")
    small.save(folder / "b.jpg", quality=50)


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.usefixtures("desk")
def test_auto_mixes_what_suits_each_file(dry):
    """``-v``, ``-n`` and ``--json`` say which weights, why, and how far."""
    more = ["-n"] if dry else []
    command = ("upscale", "a.png", "b.jpg", "gone.jpg", "-f", "png", "--json", "-v")
    result = run(*command, "--sharpness", 0.5, *more)

    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()][:3]
    assert [(line["model"], line["sharpness"]) for line in lines] == [
        ("base", 0.5),
        ("photo", 0.5),
        (None, None),
    ]
    assert "(PNG: base with sharpness 0.5)\n" in result.stderr
    assert "(JPEG of quality 50: photo with sharpness 0.5)\n" in result.stderr
    if dry:
        return
    ready = [line for line in result.stderr.splitlines() if " on cpu in " in line]
    assert ready[:1] + ready[-1:] == [
        "base with sharpness 0.5 on cpu in float32",
        "photo with sharpness 0.5 on cpu in float32",
    ]
    settings = Settings(device="cpu", dtype="fp32", sharpness=0.5)
    for source, name in (("a.png", "sharp"), ("b.jpg", "photo")):
        enlarged = Upscaler(name, settings=settings)(source, scale=3)
        with Image.open(f"{Path(source).stem}_x3.png") as image:
            assert image.tobytes() == enlarged.tobytes()


@pytest.mark.usefixtures("desk")
def test_weights_with_a_damaged_header_end_a_run_before_the_first_file(shipped):
    """Whichever it is, and whatever the files need: nothing is begun, in a dry run either."""
    shipped["photo"].write_bytes(b"no weights")

    for more in ([], ["-n"]):
        result = run("upscale", "a.png", "--json", *more)

        assert (result.exit_code, result.stdout) == (4, "")
        assert f"cannot read weights {shipped['photo']}: " in result.stderr
    assert not Path("a_x3.png").exists()


@pytest.mark.usefixtures("desk")
def test_damage_behind_a_header_costs_the_files_that_need_it(shipped):
    """They fail with the exit code of missing weights; the others are done."""
    shipped["photo"].write_bytes(shipped["photo"].read_bytes()[:-400] + b"\xff" * 400)

    lines = run("upscale", "b.jpg", "a.png", "--json").stdout.splitlines()

    failed, done = map(json.loads, lines[:2])
    assert done["status"] == "done"
    assert (failed["exit_code"], failed["model"]) == (4, "photo")
    assert failed["message"].startswith("b.jpg: ")
    assert "holds NaN or infinity; use another file" in failed["message"]


@pytest.mark.usefixtures("desk")
def test_the_default_is_about_what_auto_chooses_among(shipped, monkeypatch):
    """It mixes ``base`` and ``photo``, also by name; no others."""
    monkeypatch.setattr(nets, "DEFAULT_SHARPNESS", 0.25)
    mixed = {}
    for model in ("auto", "base", "photo", "sharp", "faces"):
        result = run("upscale", "a.png", "--json", "-m", model, "--overwrite")
        mixed[model] = json.loads(result.stdout.splitlines()[0])["sharpness"]

    assert mixed == {"auto": 0.25, "base": 0.25, "photo": 0.25, "sharp": None, "faces": None}
    shipped["sharp"].write_bytes(b"half")  # which is no missing one
    result = run("upscale", "a.png", "--overwrite")
    assert result.exit_code == 4
    assert f"cannot read weights {shipped['sharp']}: " in result.stderr


@pytest.mark.usefixtures("shipped", "paired")
def test_eval_scores_each_sharpness():
    """One method for each weights and value, under a name that tells."""
    shares = ("--sharpness", 0, "--sharpness", 0.5, "--sharpness", 1)
    mixed = json.loads(run("eval", "HR", *shares, "--json").stdout)
    plain = json.loads(run("eval", "HR", "-m", "base", "-m", "sharp", "--json").stdout)

    names = [f"base with sharpness {share}" for share in ("0", "0.5", "1")]
    assert mixed["methods"] == ["bicubic", *names]
    none, some, all_ = (mixed["mean"][name] for name in names)
    assert (none, all_) == (plain["mean"]["base"], plain["mean"]["sharp"])
    assert some not in (none, all_)
