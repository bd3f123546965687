"""Sixteen bits a channel, and what else Pillow alone would lose."""

import io
import lzma
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import ExifTags, PngImagePlugin
from reading_files import (
    AVIF,
    HEIGHT,
    SRGB,
    UPRIGHT,
    WIDTH,
    as_image,
    chunk,
    exif_block,
    noise,
    parsed,
    png,
    tiff,
)

from srcli.errors import ImageError
from srcli.imaging.ifd import SHORT, Layout, laid_out
from srcli.imaging.reading import read, read_album, read_header, read_size

# ---- sixteen bits -------------------------------------------------------------------------


def plain_tiff(bits, photometric, samples, data, **more):
    """Lay out a TIFF of one strip, 8x2 pixels, that no writer makes."""
    layout = Layout("<", big=False)
    tags = {256: 8, 257: 2, 259: 1, 262: photometric, 273: 8, 277: samples, 278: 2}
    tags |= {279: len(data), **{int(tag[1:]): value for tag, value in more.items()}}
    parts = {tag: layout.numbers(SHORT, value) for tag, value in tags.items()}
    parts[258] = layout.numbers(SHORT, *[bits] * samples)
    start = b"II*\0" + struct.pack("<I", 8 + len(data)) + data
    return start + laid_out({0: parts}, len(start), layout)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (plain_tiff(10, 1, 1, bytes(20)), "of a kind that is not read (samples_per_pixel not a"),
        (plain_tiff(12, 2, 3, bytes(72)), "3 samples of 12 bits in this way are not read; save"),
        (plain_tiff(8, 8, 4, bytes(64)), "4 samples of 8 bits in this way are not read; save"),
        (plain_tiff(16, 9, 3, bytes(96)), "photometric interpretation 9, which is not read; save"),
    ],
    ids=["grey of 10 bits", "RGB of 12", "CIELAB with opacity", "CIELAB of ICC"],
)
def test_what_is_not_read_is_not_called_damaged(data, line):
    """What nobody can decode is named, and what to do."""
    with pytest.raises(ImageError) as caught:
        read(Path("a"), data)
    assert str(caught.value).startswith(f"a: {line}")


def test_rare_kinds_of_tiff_are_read():
    """Colours of half the resolution, not compressed."""
    grey = plain_tiff(8, 6, 3, bytes([90, 90, 90, 90, 128, 128] * 4))
    np.testing.assert_array_equal(90, read(Path("a"), grey).pixels)


def test_sixteen_bits_that_are_read_at_eight_are_named():
    """Pillow alone decodes LZMA."""
    data = plain_tiff(16, 2, 3, lzma.compress(bytes(96)), _259=34925)
    assert read_album(Path("a"), data).notes == ("TIFF of 16 bits read at 8 bits",)
    assert read_header(Path("a"), data).bits == 8


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.complex64, np.int16, np.uint32])
def test_levels_without_a_known_range_are_refused(kind):
    """Guessing their white would give garbage; libvips calls some of them damaged."""
    line = "^a: floating-point, signed or 32-bit levels have no fixed range; convert it to 8 or 16"
    with pytest.raises(ImageError, match=line):
        read(Path("a"), tiff(np.full((4, 4, 1), 5, kind)))


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
            read(Path("a.tiff"), data)
        return
    (picture,) = read_album(Path("a.tiff"), data).pictures

    np.testing.assert_array_equal(levels[..., :colours], picture.pixels)
    assert picture.pixels.dtype == np.uint16
    if channels == colours:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(levels[..., colours:], picture.alpha)
    header = read_header(Path("a.tiff"), data)
    assert (header.bits, header.channels, header.alpha) == (16, colours, channels > colours)


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_white_is_zero_is_turned_round(bits):
    """A TIFF that counts from white reads like any other, with an opacity too."""
    levels = noise(2, bits)
    top = np.iinfo(bits).max

    alone = read(Path("a.tiff"), tiff(levels[..., :1], photometric="miniswhite"))
    both = read(Path("a.tiff"), tiff(levels, photometric="miniswhite"))

    np.testing.assert_array_equal(top - levels[..., :1], alone.pixels)
    np.testing.assert_array_equal(top - levels[..., :1], both.pixels)
    np.testing.assert_array_equal(levels[..., 1:], both.alpha)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_opacity_is_taken_out_of_the_colours(planar):
    """Associated alpha is multiplied into the stored colours, and not into ours."""
    colours = noise(3, np.uint16)
    alpha = np.maximum(noise(1, np.uint16, seed=1), 8000)
    stored = np.rint(colours / 65535 * alpha).astype(np.uint16)

    data = tiff(np.dstack([stored, alpha]), planar, extrasamples=["assocalpha"])
    picture = read(Path("a.tiff"), data)

    np.testing.assert_allclose(picture.pixels.astype(int), colours, rtol=0, atol=6)
    np.testing.assert_array_equal(alpha, picture.alpha)


def test_an_unspecified_extra_channel_is_no_opacity():
    """What a TIFF does not call an opacity is left out, with a note, at 16 bits as at 8."""
    for bits in (np.uint8, np.uint16):
        for extra in (["unspecified"], ["unspecified", "unassalpha"]):
            levels = noise(3 + len(extra), bits)

            album = read_album(Path("a.tiff"), tiff(levels, extrasamples=extra))

            (picture,) = album.pictures
            np.testing.assert_array_equal(levels[..., :3], picture.pixels)
            assert album.notes == ("left out: 1 further channel",)
            assert (picture.alpha is None) is (len(extra) == 1)
            if picture.alpha is not None:
                np.testing.assert_array_equal(levels[..., 4:], picture.alpha)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_pngs_keep_every_level(channels, interlaced):
    """Every kind of PNG of 16 bits arrives exactly."""
    levels = noise(channels, np.uint16, height=19, width=23)
    colours = 1 if channels < 3 else 3
    image = pyvips.Image.new_from_array(levels if channels > 1 else levels[..., 0])
    image = image.copy(interpretation="grey16" if colours == 1 else "rgb16")

    data = image.pngsave_buffer(bitdepth=16, interlace=interlaced)
    (picture,) = read_album(Path("a.png"), data).pictures

    np.testing.assert_array_equal(levels[..., :colours], picture.pixels)
    if channels > colours:
        np.testing.assert_array_equal(levels[..., colours:], picture.alpha)
    header = read_header(Path("a.png"), data)
    assert (header.bits, header.channels) == (16, colours)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bit_colour_is_turned_and_described(kind, orientation):
    """Orientation and metadata of a 16-bit file are those of any other, opacity turned too."""
    levels = noise(4, np.uint16)
    if kind == "png":
        image = pyvips.Image.new_from_array(levels)
        image = image.copy(interpretation="rgb16", xres=100 / 25.4, yres=100 / 25.4)
        data = image.pngsave_buffer(bitdepth=16, keep="none")
        early = chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB))
        early += chunk(b"eXIf", exif_block(orientation)[6:])
        data = data[:33] + early + data[33:]
    else:
        extra = [(274, 3, 1, orientation, True), (271, 2, 6, "Maker", True)]
        more = {"resolution": (100, 100), "resolutionunit": 2, "iccprofile": SRGB}
        data = tiff(levels, extratags=extra, **more)

    picture = read(Path("a"), data)

    expected = UPRIGHT[orientation](levels)
    np.testing.assert_array_equal(expected[..., :3], picture.pixels)
    np.testing.assert_array_equal(expected[..., 3:], picture.alpha)
    assert (picture.width, picture.height) == read_size(Path("a"), data)
    described = parsed(picture.metadata.exif)[0]
    assert described[ExifTags.Base.Make] == "Maker"
    assert (
        described.get(ExifTags.Base.Orientation, 1) == picture.metadata.orientation == orientation
    )
    assert picture.metadata.dpi == pytest.approx((100, 100), abs=0.01)
    assert picture.metadata.icc_profile == SRGB


@pytest.mark.parametrize("kind", ["png", "zlib", "raw"])
def test_damage_of_sixteen_bit_files_is_told(capfd, kind):
    """Cut or changed bytes are one line of an error, and nothing on the terminal."""
    levels = noise(3, np.uint16, height=40, width=40)
    if kind == "png":
        data = pyvips.Image.new_from_array(levels).pngsave_buffer(bitdepth=16)
    else:
        data = tiff(levels, **({"compression": "zlib"} if kind == "zlib" else {}))
    middle = len(data) // 2
    changed = bytearray(data)
    changed[middle] ^= 0xFF

    with pytest.raises(ImageError, match=r"^a: (truncated, its end|not an image)"):
        read(Path("a"), data[:middle])
    if kind != "raw":  # which has no checksum
        with pytest.raises(ImageError, match=r"^a: damaged \("):
            read(Path("a"), bytes(changed))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_no_changed_byte_of_the_pixels_of_a_png_goes_unnoticed(bits):
    """The checksums are looked at: Pillow alone would decode something else, without a word."""
    levels = noise(3, bits, height=9, width=9)
    data = pyvips.Image.new_from_array(levels).pngsave_buffer(compression=0, keep="none")
    np.testing.assert_array_equal(levels, read(Path("a.png"), data).pixels)
    start = data.index(b"IDAT") + 4

    for where in range(start, len(data) - 12, 3):
        changed = bytearray(data)
        changed[where] ^= 0x10
        with pytest.raises(ImageError, match="damaged"):
            read(Path("a.png"), bytes(changed))


@pytest.mark.parametrize("compression", ["lzma", "zstd", "webp"])
def test_what_one_of_two_libtiffs_knows_is_read(compression):
    """Pillow's libtiff undoes LZMA and Zstandard, that of libvips WebP."""
    levels = noise(3, height=24, width=40)
    stream = io.BytesIO()
    if compression != "webp":
        as_image(levels).save(stream, "TIFF", compression=compression)
    else:
        image = pyvips.Image.new_from_array(levels)
        stream.write(image.tiffsave_buffer(compression="webp", lossless=True))

    np.testing.assert_array_equal(levels, read(Path("a.tiff"), stream.getvalue()).pixels)


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

    picture = read(Path("a.ppm"), data)

    expected = np.rint(levels.astype(float) * 65535 / top)
    np.testing.assert_array_equal(expected, picture.pixels)
    assert read_header(Path("a.ppm"), data).bits == 16
    cut = data.rstrip(b"0123456789") if plain else data[:-1]
    with pytest.raises(ImageError, match="truncated, its end is missing"):
        read(Path("a.ppm"), cut)


@AVIF
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_an_avif_that_loses_bits_says_so(bits):
    """What Pillow rounds to 8 bits is named."""
    wide = pyvips.Image.new_from_array(noise(3, np.uint16)).copy(interpretation="rgb16")
    try:
        data = wide.heifsave_buffer(compression="av1", bitdepth=bits)
    except pyvips.Error:
        pytest.skip("libvips without an encoder of AVIF")

    notes = read_album(Path("a.avif"), data).notes

    assert notes == (() if bits == 8 else (f"AVIF of {bits} bits read at 8 bits",))


def test_a_tiff_in_cmyk_of_sixteen_bits_says_that_it_is_rounded():
    """Pillow takes the upper eight."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, noise(4, np.uint16), photometric="separated")

    notes = read_album(Path("a.tiff"), stream.getvalue()).notes

    assert "CMYK of 16 bits read at 8 bits" in notes


def test_what_pillow_does_not_know_is_not_called_damaged():
    """A BMP of an unknown kind may be sound."""
    stream = io.BytesIO()
    as_image(noise(3)).save(stream, "BMP")
    data = bytearray(stream.getvalue())
    struct.pack_into("<H", data, 28, 48)  # bits a pixel

    with pytest.raises(ImageError, match=r"of a kind that is not read \(.*48.*\); convert it"):
        read(Path("a.bmp"), bytes(data))


def test_a_large_profile_or_text_does_not_cost_the_png():
    """Pillow's limit of a megabyte for each is lifted while a file is open, and comes back."""
    profile_data = SRGB.ljust(3 << 20, b"\0")
    early = ((b"iCCP", b"x\0\0" + zlib.compress(profile_data)),)
    early += ((b"zTXt", b"Title\0\0" + zlib.compress(b"t" * (2 << 20))),)
    before = PngImagePlugin.MAX_TEXT_CHUNK

    metadata = read(Path("a.png"), png(8, 2, b"abc", *early)).metadata

    assert metadata.icc_profile == profile_data
    assert metadata.text == (("Title", "t" * (2 << 20)),)
    assert before == PngImagePlugin.MAX_TEXT_CHUNK


def test_a_gif_without_its_end_mark_says_that_frames_may_be_missing(saved):
    """Cut off between two frames it looks whole: it is read, with a note."""
    frames = [as_image(noise(1, seed=seed)) for seed in range(3)]
    path = saved(frames[0], "a.gif", save_all=True, append_images=frames[1:])
    data = path.read_bytes()

    assert read_album(path).notes == read_album(path, data + b"\r\n\0").notes == ()
    album = read_album(path, data[:-1])

    assert album.notes == ("it has no end mark: frames may be missing",)
    assert len(album.pictures) == 3
