"""Pictures, files and their parts for the tests of reading."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, features
from run_files import refusal

from srcli.errors import ImageError
from srcli.imaging.reading import read

HEIGHT, WIDTH = 5, 7
NAME = Path("a")
"""What the bytes that a test makes are called."""


def noise(channels, dtype=np.uint8, seed=0, height=HEIGHT, width=WIDTH):
    """Draw levels of the whole range of a dtype."""
    top = np.iinfo(dtype).max
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, top, shape, dtype=dtype, endpoint=True)


def smooth(channels=3):
    """Make a 24x40 gradient that lossy codecs hardly change."""
    rows, columns = np.mgrid[0:24, 0:40]
    planes = [rows * 5, columns * 3 + 40, rows + columns + 90]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def waves(width, height, channels=3, dtype=np.uint8):
    """Draw waves with some noise: what JPEG has to round everywhere."""
    rows, columns = np.mgrid[:height, :width]
    planes = [np.sin(rows / (3 + k)) + np.cos(columns / (5 - k)) for k in range(channels)]
    levels = np.stack(planes, -1) / 4 + 0.5
    levels = levels + np.random.default_rng(3).normal(0, 0.05, levels.shape)
    return (levels.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)


def as_image(levels):
    """Hand an array to Pillow."""
    return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def as_bytes(picture, kind, **options):
    """Encode an image, an array, or the frames of an animation through Pillow."""
    parts = picture if isinstance(picture, list) else [picture]
    first, *others = (as_image(each) if isinstance(each, np.ndarray) else each for each in parts)
    if others:
        options |= {"save_all": True, "append_images": others}
    stream = io.BytesIO()
    first.save(stream, kind, **options)
    return stream.getvalue()


def chunk(name, data):
    """Assemble a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits, kind, row, *early, late=()):
    """Assemble a PNG of one row by hand: bit depth, colour type, bytes, and other chunks."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    header = struct.pack(">IIBBBBB", len(row) * 8 // bits // samples, 1, bits, kind, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        *early,
        (b"IDAT", zlib.compress(b"\0" + row)),
        *late,
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def png_with(*chunks, mode="RGB", **options):
    """Put chunks, each a name and its content, before the pixels of a PNG."""
    data = as_bytes(as_image(smooth()).convert(mode), "PNG", **options)
    return data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:]


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_block(orientation=None):
    """Make EXIF with text, an Exif directory and a GPS directory."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ISOSpeedRatings: 640,
        ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
        ExifTags.Base.ExifImageWidth: 4000,
    }
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif.tobytes()


GREY, RGB, RGBA, LA = noise(1), noise(3), noise(4), noise(2)


INDICES = (np.arange(HEIGHT * WIDTH) % 4).astype(np.uint8).reshape(HEIGHT, WIDTH)


COLOURS = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [250, 250, 255]], dtype=np.uint8)


def palette_image():
    """Make a palette image of four colours."""
    image = Image.fromarray(INDICES).convert("P")
    image.putdata(INDICES.ravel().tolist())
    image.putpalette(COLOURS.tobytes())
    return image


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


AVIF = pytest.mark.skipif("avif" not in features.get_supported(), reason="Pillow without AVIF")


def drawn(clear):
    """Draw four frames of few colours; of the clear ones, part is transparent and moves."""
    frames = []
    for number in range(4):
        levels = np.full((12, 16, 4), 255, np.uint8)
        levels[..., :3] = [10 * number, 200, 90]
        levels[2:6, 3 * number : 3 * number + 4, :3] = [255, 0, 0]
        if clear:
            levels[8 : 9 + number, 2 + number : 9] = 0
        frames.append(Image.fromarray(levels if clear else levels[..., :3].copy()))
    return frames


def message_of(path, verb=read, data=None):
    """Read a bad file and give the message, after checking that it is one line."""
    text = refusal(lambda: verb(path, data), ImageError)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def tiff(levels, planar="contig", byteorder="<", **options):
    """Write a TIFF of any kind with tifffile, a writer that has nothing to do with ours."""
    stream = io.BytesIO()
    channels = levels.shape[2]
    grey = channels < 3
    extra = ["unassalpha"] * (channels - (1 if grey else 3))
    stored = levels if planar == "contig" else levels.transpose(2, 0, 1).copy()
    options = {"photometric": "minisblack" if grey else "rgb", "extrasamples": extra, **options}
    if channels > 1:
        options["planarconfig"] = planar
    else:
        stored = levels[..., 0]
    tifffile.imwrite(stream, stored, byteorder=byteorder, metadata=None, **options)
    return stream.getvalue()


def raw(kind=1, sensor="cfa", **options):
    """Write a TIFF as cameras do: a small copy first, the picture in a directory below."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(smooth()[::2, ::2].copy(), subfiletype=kind, photometric="rgb", **options)
        writer.write(smooth(1)[..., 0], photometric=sensor, subfiletype=0)
    return stream.getvalue()


def lab_of(pixels, embedded, flags=0):
    """Tell the CIELAB of an image, or of pixels, by its profile, as floats."""
    image = pixels if isinstance(pixels, Image.Image) else as_image(pixels)
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(embedded)),
        ImageCms.createProfile("LAB"),
        image.mode,
        "LAB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags,
    )
    levels = np.array(ImageCms.applyTransform(image, transform))
    return np.dstack([levels[..., 0] * (100 / 255), levels[..., 1:].view(np.int8)])


TO_XYZ = {
    "sRGB": [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)],
    "a98": [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)],
    "P3": [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)],
}
"""XYZ of red, green and blue under D50, as published: sRGB, Adobe RGB (1998), Display P3."""
