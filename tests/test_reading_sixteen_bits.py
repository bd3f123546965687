"""Sixteen bits a channel, and what else Pillow alone would lose."""

import lzma
import struct
import zlib

import numpy as np
import pytest
import pyvips
from metadata_blocks import Layout
from PIL import PngImagePlugin
from reading_files import AVIF, HEIGHT, NAME, SRGB, WIDTH, as_bytes, noise, png, tiff

from srcli.errors import ImageError
from srcli.imaging.ifd import SHORT, laid_out
from srcli.imaging.reading import read, read_album, read_header


def plain_tiff(bits, photometric, samples, data, **more):
    """Lay out a TIFF of one strip, 8x2 pixels, that no writer makes."""
    layout = Layout("<", big=False)
    tags = {256: 8, 257: 2, 259: 1, 262: photometric, 273: 8, 277: samples, 278: 2}
    tags |= {279: len(data), **{int(tag[1:]): value for tag, value in more.items()}}
    parts = {tag: layout.numbers(SHORT, value) for tag, value in tags.items()}
    parts[258] = layout.numbers(SHORT, *[bits] * samples)
    start = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    return start + laid_out({0: parts}, len(start), layout)


def bmp_of_48_bits():
    """Make a BMP of a kind that Pillow does not know."""
    data = bytearray(as_bytes(noise(3), "BMP"))
    struct.pack_into("<H", data, 28, 48)
    return bytes(data)


NO_RANGE = "floating-point, signed or 32-bit levels have no fixed range; convert it to 8 or 16"
UNBOUNDED = (np.float16, np.float64, np.complex64, np.int16, np.uint32)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (plain_tiff(4, 1, 2, bytes(64)), "of a kind that is not read"),
        (plain_tiff(10, 1, 1, bytes(20)), r"of a kind that is not read \(samples_per_pixel not a"),
        (plain_tiff(12, 2, 3, bytes(72)), "3 samples of 12 bits in this way are not read; save"),
        (plain_tiff(8, 8, 4, bytes(64)), "4 samples of 8 bits in this way are not read; save"),
        (
            plain_tiff(16, 9, 3, bytes(96)),
            "photometric interpretation 9 of 16 bits, which is not",
        ),
        (plain_tiff(16, 8, 3, bytes(96)), "photometric interpretation 8 of 16 bits, which is not"),
        (bmp_of_48_bits(), r"of a kind that is not read \(.*48.*\); convert it"),
        *((tiff(np.full((4, 4, 1), 5, kind)), NO_RANGE) for kind in UNBOUNDED),
    ],
)
def test_what_is_not_read_is_not_called_damaged(data, line):
    """What nobody can decode, or whose white would be guessed, is named, and what to do."""
    with pytest.raises(ImageError, match=f"^a: {line}"):
        read(NAME, data)


def avif(bits):
    """Make an AVIF; skip where libvips has no encoder."""
    wide = pyvips.Image.new_from_array(noise(3, np.uint16)).copy(interpretation="rgb16")
    try:
        return wide.heifsave_buffer(compression="av1", bitdepth=bits)
    except pyvips.Error:
        pytest.skip("libvips without an encoder of AVIF")


@pytest.mark.parametrize(
    ("data", "notes"),
    [
        (  # which Pillow alone decodes
            lambda: plain_tiff(16, 2, 3, lzma.compress(bytes(96)), _259=34925),
            ["TIFF of 16 bits read at 8 bits"],
        ),
        (
            lambda: tiff(noise(4, np.uint16), photometric="separated", extrasamples=[]),
            [
                "CMYK converted to sRGB by a plain formula: it has no profile",
                "CMYK of 16 bits read at 8 bits",
            ],
        ),
        pytest.param(lambda: avif(8), [], marks=AVIF),
        pytest.param(lambda: avif(10), ["AVIF of 10 bits read at 8 bits"], marks=AVIF),
        pytest.param(lambda: avif(12), ["AVIF of 12 bits read at 8 bits"], marks=AVIF),
    ],
    ids=["LZMA", "CMYK", "AVIF 8", "AVIF 10", "AVIF 12"],
)
def test_what_is_read_at_eight_bits_is_named(data, notes):
    """Where neither decoder gives all that is stored."""
    assert list(read_album(NAME, data()).notes) == notes
    assert read_header(NAME, data()).bits == 8


@pytest.mark.parametrize("byteorder", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "tile": (16, 32)},
        {"rowsperstrip": 4, "bigtiff": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_tiffs_keep_every_level(channels, planar, options, byteorder):
    """Grey and colour, with and without opacity, arrive exactly, or it is refused."""
    levels = noise(channels, np.uint16, height=37, width=45)
    colours = 1 if channels < 3 else 3

    data = tiff(levels, planar, byteorder, **options)
    if planar == "separate" and (channels == 2 or (channels > 2 and "tile" in options)):
        with pytest.raises(ImageError, match="channels that lie apart in this way are not read"):
            read(NAME, data)
        return
    check_levels(data, levels, colours)


def check_levels(data, levels, colours):
    """Check that a file of 16 bits arrives exactly, and that its header says what it is."""
    (picture,) = read_album(NAME, data).pictures
    np.testing.assert_array_equal(levels[..., :colours], picture.pixels)
    assert picture.pixels.dtype == np.uint16
    if levels.shape[2] == colours:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(levels[..., colours:], picture.alpha)
    header = read_header(NAME, data)
    clear = levels.shape[2] > colours
    assert (header.bits, header.channels, header.alpha) == (16, colours, clear)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_pngs_keep_every_level(channels, interlaced):
    """Every kind of PNG of 16 bits arrives exactly."""
    levels = noise(channels, np.uint16, height=19, width=23)
    colours = 1 if channels < 3 else 3
    image = pyvips.Image.new_from_array(levels if channels > 1 else levels[..., 0])
    image = image.copy(interpretation="grey16" if colours == 1 else "rgb16")

    check_levels(image.pngsave_buffer(bitdepth=16, interlace=interlaced), levels, colours)


@pytest.mark.parametrize("plain", [False, True], ids=["binary", "plain"])
@pytest.mark.parametrize("top", [65535, 1023])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_read_from_a_ppm(plain, top, channels):
    """All levels arrive, stretched to 65535 if white is less; a comment is no level."""
    levels = noise(channels, np.uint16) & top
    stored = levels.astype(">u2").tobytes()
    if plain:
        stored = b"# x 1\n" + b" ".join(b"%d" % level for level in levels.ravel())
    magic = {(1, False): 5, (1, True): 2, (3, False): 6, (3, True): 3}[channels, plain]
    data = b"P%d\n%d %d %d\n" % (magic, WIDTH, HEIGHT, top) + stored

    check_levels(data, np.rint(levels.astype(float) * 65535 / top), channels)
    cut = data.rstrip(b"0123456789") if plain else data[:-1]
    with pytest.raises(ImageError, match="truncated, its end is missing"):
        read(NAME, cut)


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_white_is_zero_is_turned_round(bits):
    """A TIFF that counts from white reads like any other, with an opacity too."""
    levels = noise(2, bits)

    both = read(NAME, tiff(levels, photometric="miniswhite"))

    np.testing.assert_array_equal(np.iinfo(bits).max - levels[..., :1], both.pixels)
    np.testing.assert_array_equal(levels[..., 1:], both.alpha)


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_opacity_is_taken_out_of_the_colours(planar, bits):
    """Associated alpha is multiplied into the stored colours, and not into ours."""
    colours, top = noise(3, bits), np.iinfo(bits).max
    alpha = np.maximum(noise(1, bits, seed=1), top // 8)
    stored = np.rint(colours / top * alpha).astype(bits)

    picture = read(NAME, tiff(np.dstack([stored, alpha]), planar, extrasamples=["assocalpha"]))

    np.testing.assert_allclose(picture.pixels.astype(int), colours, rtol=0, atol=6)
    np.testing.assert_array_equal(alpha, picture.alpha)


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [["unspecified"], ["unspecified", "unassalpha"]], ids=str)
def test_an_unspecified_extra_channel_is_no_opacity(bits, extra):
    """What a TIFF does not call an opacity is left out, with a note, at 16 bits as at 8."""
    levels = noise(3 + len(extra), bits)

    album = read_album(NAME, tiff(levels, extrasamples=extra))

    (picture,) = album.pictures
    np.testing.assert_array_equal(levels[..., :3], picture.pixels)
    assert album.notes == ("left out: 1 further channel",)
    assert (picture.alpha is None) is (len(extra) == 1)
    if picture.alpha is not None:
        np.testing.assert_array_equal(levels[..., 4:], picture.alpha)


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_no_changed_byte_of_the_pixels_of_a_png_goes_unnoticed(bits):
    """The checksums are looked at: Pillow alone would decode something else, without a word."""
    levels = noise(3, bits, height=9, width=9)
    data = pyvips.Image.new_from_array(levels).pngsave_buffer(compression=0, keep="none")
    np.testing.assert_array_equal(levels, read(NAME, data).pixels)
    start = data.index(b"IDAT") + 4

    for where in range(start, len(data) - 12, 3):
        changed = bytearray(data)
        changed[where] ^= 0x10
        with pytest.raises(ImageError, match="damaged"):
            read(NAME, bytes(changed))


@pytest.mark.parametrize("compression", ["lzma", "zstd", "webp"])
def test_what_one_of_two_libtiffs_knows_is_read(compression):
    """Pillow's libtiff undoes LZMA and Zstandard, that of libvips WebP."""
    levels = noise(3, height=24, width=40)
    if compression == "webp":
        image = pyvips.Image.new_from_array(levels)
        data = image.tiffsave_buffer(compression="webp", lossless=True)
    else:
        data = as_bytes(levels, "TIFF", compression=compression)

    np.testing.assert_array_equal(levels, read(NAME, data).pixels)


def test_colours_of_half_the_resolution_are_read():
    """In a TIFF that is not compressed."""
    grey = plain_tiff(8, 6, 3, bytes([90, 90, 90, 90, 128, 128] * 4))
    np.testing.assert_array_equal(90, read(NAME, grey).pixels)


def test_a_large_profile_or_text_does_not_cost_the_png():
    """Pillow's limit of a megabyte for each is lifted while a file is open, and comes back."""
    profile = SRGB.ljust(3 << 20, b"\0")
    early = (
        (b"iCCP", b"x\0\0" + zlib.compress(profile)),
        (b"zTXt", b"Title\0\0" + zlib.compress(b"t" * (2 << 20))),
    )
    before = PngImagePlugin.MAX_TEXT_CHUNK

    metadata = read(NAME, png(8, 2, b"abc", *early)).metadata

    assert metadata.icc_profile == profile
    assert metadata.text == (("Title", "t" * (2 << 20)),)
    assert before == PngImagePlugin.MAX_TEXT_CHUNK
