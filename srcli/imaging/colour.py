"""Colours: what a file describes as an ICC profile, and conversions of what travels without.

Cameras name Adobe RGB in their EXIF (DCF 2.0), PNG has cICP, gAMA and cHRM, AVIF and HEIF nclx.
A profile made of them travels through every format that holds one; for others it is sRGB first.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from srcli.imaging.chunks import Chunks
from srcli.imaging.decoding import vips
from srcli.imaging.pictures import Levels, Metadata, Picture, rounded

Primaries = tuple[float, ...]
"""x and y of white, red, green and blue."""

_D65: Final = (0.3127, 0.3290)
_SRGB: Final = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB: Final = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)

_PRIMARIES: Final[dict[int, Primaries]] = {
    1: _SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    **dict.fromkeys((6, 7), (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""Colour primaries by their numbers in ITU-T H.273, table 2."""

_NAMES: Final = {
    _SRGB: "Primaries of sRGB",
    _ADOBE_RGB: "Compatible with Adobe RGB (1998)",
    _PRIMARIES[9]: "BT.2020",
    _PRIMARIES[12]: "Display P3",
}
"""What the profiles are called."""

_SRGB_CURVE: Final = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE: Final = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)

_CURVES: Final[dict[int, tuple[float, ...]]] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
    13: _SRGB_CURVE,
}
"""Transfer characteristics (H.273, table 3) as parametric curves of ICC (ICC.1:2022, 10.18)."""

_HDR: Final = {16: "PQ", 18: "HLG"}


def hdr_of(chunks: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Name the HDR that chunks of a PNG state, which no profile can say."""
    return next((_HDR.get(byte) for byte in dict(chunks).get(b"cICP", b"")[1:2]), None)


def adobe_rgb_of(exif: Image.Exif, channels: int) -> bytes | None:
    """Return a profile of Adobe RGB where EXIF says so as DCF has it: R03, or ColorSpace 2.

    ``channels`` is 1 where the pixels are grey, 3 where they are RGB, here and below.
    """
    space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
    index = str(exif.get_ifd(ExifTags.IFD.Interop).get(1, ""))
    if space == 2 or (space == 0xFFFF and index.startswith("R03")):
        return _profile(_ADOBE_RGB, (563 / 256,), channels)
    return None


def from_png(chunks: Chunks, channels: int) -> bytes | None:
    """Say what the chunks of a PNG without a profile mean (PNG 3, 4.3 and 11.3.2)."""
    if (points := chunks.find(b"cICP")) is not None:
        return _from_code_points(points[0], points[1], channels)
    if chunks.find(b"sRGB") is not None:
        return None
    stated, places = int.from_bytes((chunks.find(b"gAMA") or b"")[:4]), chunks.find(b"cHRM")
    gamma = 100_000 / stated if stated else 0.0
    primaries: Primaries = _SRGB
    if places is not None and len(places) >= 32:
        primaries = tuple(number / 100_000 for number in struct.unpack(">8I", places[:32]))
    if (not gamma or abs(gamma - 2.2) < 0.005) and np.allclose(primaries, _SRGB, atol=0.002):
        return None
    return _profile(primaries, (gamma,) if gamma else _SRGB_CURVE, channels)


def _from_code_points(primaries: int, transfer: int, channels: int) -> bytes | None:
    """Say what two numbers of H.273, as in cICP and nclx, mean."""
    curve, places = _CURVES.get(transfer, _SRGB_CURVE), _PRIMARIES.get(primaries, _SRGB)
    if transfer in _HDR or (curve, places) == (_SRGB_CURVE, _SRGB):
        return None
    return _profile(places, curve, channels)


def nclx_in(start: bytes) -> Chunks:
    """Find primaries and transfer in boxes of AVIF or HEIF (ISO 14496-12), as cICP has them."""
    box = start.partition(b"colrnclx")[2][:4]
    found = ((b"cICP", box[1::2] + b"\0\1"),) if len(box) == 4 else ()
    return Chunks(others=found, behind=b"")


# ---- ICC profiles -------------------------------------------------------------------------

_D50: Final = (0.9642, 1.0, 0.8249)
"""White of ICC's connection space."""

_BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def _profile(primaries: Primaries, curve: tuple[float, ...], channels: int) -> bytes | None:
    """Make a profile of primaries and one curve (ICC.1:2022); ``None`` where they are nonsense."""
    points = np.array(primaries).reshape(4, 2)
    if (points[:, 1] <= 0).any() or not all(np.isfinite(curve)) or curve[0] <= 0:
        return None
    white, *colours = ((x / y, 1.0, (1 - x - y) / y) for x, y in points)
    matrix = np.array(colours).T
    if abs(np.linalg.det(matrix)) < 1e-6:
        return None
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted = np.linalg.solve(_BRADFORD, cones[:, None] * (_BRADFORD @ matrix))
    shape = b"para" + struct.pack(">IHH", 0, 3 if len(curve) > 1 else 0, 0) + _fixed(curve)
    name = _NAMES.get(primaries, "RGB of a file without a profile").encode("utf-16-be")
    text = b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(name), 28) + name
    tags = {b"desc": text, b"cprt": text, b"wtpt": _xyz(_D50)}
    if channels == 1:
        tags[b"kTRC"] = shape
    else:
        for letter, column in zip(b"rgb", adapted.T, strict=True):
            tags[bytes((letter,)) + b"XYZ"] = _xyz(column)
            tags[bytes((letter,)) + b"TRC"] = shape
    return _assembled(tags, b"GRAY" if channels == 1 else b"RGB ")


def _assembled(tags: dict[bytes, bytes], space: bytes) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(content), len(value))
        content += value + b"\0" * (-len(value) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sI4s4s8sI12s48s",
        *(start + len(content), b"", 0x04300000, b"mntr", space, b"XYZ ", b"\x07\xe8\0\1\0\1"),
        *(b"acsp", b"", 0, b"", b"", b"", 1, _fixed(_D50), b""),
    )
    return header + table + content


def _fixed(numbers: Sequence[float] | np.ndarray) -> bytes:
    """Encode numbers as ICC has them: sixteen bits before the point, sixteen behind it."""
    return b"".join(struct.pack(">i", round(float(number) * 65536)) for number in numbers)


def _xyz(numbers: Sequence[float] | np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(numbers)


# ---- conversions to sRGB -----------------------------------------------------------------

_INTENT: Final = ImageCms.Intent.RELATIVE_COLORIMETRIC
"""Colours that both spaces hold stay what they are; Photoshop's default, as is the flag."""

_FLAGS: Final = ImageCms.Flags.BLACKPOINTCOMPENSATION


def rgb_of(image: Image.Image) -> tuple[Image.Image, str]:
    """Convert a CMYK or CIELAB image, loaded, to sRGB, through its own profile if that is sound.

    Second comes a line that says what was done.
    """
    if image.mode == "LAB":
        lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _through(image, lab), "CIELAB converted to sRGB"
    embedded = image.info.get("icc_profile") or b""
    try:
        converted = _through(image, _opened(embedded, b"CMYK"))
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        why = "its profile is unusable" if embedded else "it has no profile"
        return image.convert("RGB"), f"CMYK converted to sRGB by a plain formula: {why}"
    return converted, "CMYK converted to sRGB through its profile"


def to_srgb(picture: Picture) -> Picture:
    """Convert a picture from its own profile to sRGB, and drop the profile.

    Relative colorimetric with black point compensation. Pixels whose profile is sRGB, up to
    its rounding, or damaged, stay as they are, and so does transparency.
    """
    profile = picture.metadata.icc_profile
    if profile is None:
        return picture
    metadata = replace(picture.metadata, icc_profile=None)
    space = b"GRAY" if picture.pixels.shape[2] == 1 else b"RGB "
    if _is_srgb(profile, space):
        return replace(picture, metadata=metadata)
    convert = _eight_bits if picture.pixels.dtype == np.uint8 else _sixteen_bits
    return replace(picture, pixels=convert(picture.pixels, profile), metadata=metadata)


def stripped(picture: Picture) -> Picture:
    """Take the metadata off a picture without changing what its colours look like: in sRGB."""
    return replace(to_srgb(picture), metadata=bare_metadata(picture.metadata))


def bare_metadata(found: Metadata) -> Metadata:
    """Leave of metadata what says that the colours are HDR, which cannot become sRGB."""
    stays = found.icc_profile is None and hdr_of(found.colour_chunks)
    return Metadata(colour_chunks=found.colour_chunks if stays else ())


def _opened(profile: bytes, space: bytes) -> ImageCms.ImageCmsProfile:
    """Parse a profile; ValueError if it describes another colour space, OSError if damaged."""
    if profile[16:20] != space:
        raise ValueError("a profile of another colour space")
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def _through(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """Convert an image from a profile to sRGB."""
    transform = ImageCms.buildTransform(
        profile, ImageCms.createProfile("sRGB"), image.mode, "RGB", _INTENT, _FLAGS
    )
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:  # only where an image is changed in place
        raise ValueError("the profile cannot be applied")
    return converted


_STEPS: Final = np.linspace(0, 255, 9).round().astype(np.uint8)
"""Levels at which a profile is compared with sRGB."""


def _is_srgb(profile: bytes, space: bytes) -> bool:
    """Whether converting changes no level by more than one, or cannot be done at all."""
    channels = 1 if space == b"GRAY" else 3
    probe = np.stack(np.meshgrid(*[_STEPS] * channels), axis=-1).reshape(-1, 1, channels)
    try:
        converted = _eight_bits(probe, profile)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return True
    return bool(np.abs(converted.astype(int) - probe).max() <= 1)


def _eight_bits(pixels: Levels, profile: bytes) -> NDArray[np.uint8]:
    channels = pixels.shape[2]
    opened = _opened(profile, b"GRAY" if channels == 1 else b"RGB ")
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    # Neutral greys are equal in all three channels of sRGB.
    return np.ascontiguousarray(np.array(_through(image, opened))[..., :channels])


def _sixteen_bits(pixels: Levels, profile: bytes) -> NDArray[np.uint16]:
    """Convert by libvips, which drives the same engine (Little CMS) at 16 bits."""
    pyvips = vips()
    channels = pixels.shape[2]
    kind = "grey16" if channels == 1 else "rgb16"
    image = pyvips.Image.new_from_array(pixels).copy(interpretation=kind)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    options = {"intent": "relative", "black_point_compensation": True, "pcs": "lab"}
    # By way of floating-point CIELAB: from 16 bits straight to 16 the engine interpolates in a
    # table, which is wrong by up to 8 of 255 levels where a channel is almost black.
    try:
        neutral = image.icc_import(embedded=True, **options)
        converted = neutral.icc_export(output_profile="srgb", depth=16, **options).numpy()
    except pyvips.Error:  # it asks more of a profile than Pillow; the colours come first
        return _eight_bits(rounded(pixels), profile).astype(np.uint16) * 257
    return np.ascontiguousarray(converted[..., :channels])
