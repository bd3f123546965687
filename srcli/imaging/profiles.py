"""Conversions between colour spaces: what travels without its profile is made sRGB first."""

import io
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from srcli.imaging.colour import hdr_of
from srcli.imaging.pictures import Levels, Metadata, Picture, rounded
from srcli.imaging.vips import vips

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
    embedded = image.info.get("icc_profile")
    if not embedded:
        return image.convert("RGB"), "CMYK converted to sRGB by a plain formula: it has no profile"
    try:
        converted = _through(image, _opened(embedded, b"CMYK"))
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        note = "CMYK converted to sRGB by a plain formula: its profile is unusable"
        return image.convert("RGB"), note
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
    if space == b"GRAY":
        probe = _STEPS[:, np.newaxis, np.newaxis]
    else:
        probe = np.stack(np.meshgrid(_STEPS, _STEPS, _STEPS), axis=-1).reshape(-1, 1, 3)
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
