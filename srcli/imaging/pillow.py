"""Pictures that Pillow decodes: what a file holds, frame by frame, as arrays.

A still PNG is decoded by libvips, which keeps 16 bits and compares checksums. The frames of an
animated one and of a GIF are composed here: Pillow mixes what is partly transparent otherwise than
PNG says, and fills with colours what browsers leave clear.
"""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, BinaryIO, Final

from PIL import Image, ImageChops, ImageFile

from srcli.errors import ImageError
from srcli.imaging import colour
from srcli.imaging.chunks import SIGNATURE, Chunks, png_chunks, png_frames
from srcli.imaging.colour import rgb_of
from srcli.imaging.decoding import (
    CONVERTED,
    behind_ppm,
    decoded,
    is_deep_ppm,
    levels_of,
    ppm_levels,
)
from srcli.imaging.formats import BUILT, kind_of, registered
from srcli.imaging.headers import (
    Header,
    av1_bits,
    behind_jpeg,
    boxes_of,
    clear_webp,
    coding_of,
    gif_blocks,
    gif_frames,
    jxl_header,
    parts_beside,
)
from srcli.imaging.metadata import (
    exif_block,
    left_behind,
    metadata_of,
    orientation_of,
    sound,
)
from srcli.imaging.opening import check_pixels, is_no_damage
from srcli.imaging.pictures import Levels, Metadata, Picture, upright, upright_size

_MOST_BOXES: Final = 1 << 16
"""Bytes at the start of an AVIF or HEIF in which its properties are looked for."""

_CLEAN_APERTURE: Final = b"\0\0\0\x28clap"
"""How a box begins that says what of an AVIF is to be seen, which Pillow does not ask for."""

_NO_END: Final = "its end mark is missing; every pixel is there"
_CUT_GIF: Final = "it has no end mark: frames may be missing"

_OF_ANIMATIONS: Final = (b"!\xff\x0bNETSCAPE2.0", b"!\xff\x0bANIMEXTS1.0")
"""How the blocks of a GIF begin that say how often it is repeated."""


def _opened(stream: BinaryIO, limit: int, chunks: Chunks | None) -> ImageFile.ImageFile:
    """Let Pillow find out what a stream holds, and check that it is not too large."""
    stream.seek(0)
    start = stream.read(40)
    if start[:4] == b"RIFF" and start[12:16] == b"VP8X":  # opening a WebP allocates its canvas
        sides = (int.from_bytes(start[at : at + 3], "little") + 1 for at in (24, 27))
        check_pixels((next(sides), next(sides)), 1, limit)
    kind = kind_of(start)
    formats = [*BUILT] if kind is None else [registered(kind)]
    stream.seek(0)
    if kind == "JPEG XL":  # opening it decodes it
        check_pixels(jxl_header(stream.read())[0], 1, limit)
        stream.seek(0)
    source = stream if chunks is None else io.BytesIO(chunks.without_texts())
    try:
        image = Image.open(source, formats=formats)
    except Exception as error:
        if kind is None or is_no_damage(error):
            raise
        raise ImageError(f"a {kind} file that is damaged; fetch the file again") from error
    check_pixels(image.size, 1, limit)
    return image


class PillowFile:
    """An image file that Pillow has opened."""

    part = "frame"

    def __init__(self, stream: BinaryIO, limit: int, notes: dict[str, None]) -> None:
        """Look at what is there, without decoding a pixel.

        ``limit`` is the most pixels that may be decoded; ``notes`` takes what had to be changed.
        """
        self.stream, self.limit, self.notes = stream, limit, notes
        # A PNG is opened whatever is damaged beside its pixels.
        is_png = stream.read(len(SIGNATURE)) == SIGNATURE
        self.chunks = png_chunks(stream) if is_png else None
        """Those of a PNG."""

        self.image = image = _opened(stream, limit, self.chunks)
        self._start = stream.tell()  # in a JPEG behind the header
        self.format = "JPEG" if image.format == "MPO" else str(image.format)
        self.size = image.size
        """Width and height as stored."""

        moves = self.format in {"GIF", "PNG", "WEBP", "AVIF"}
        self.count: int = getattr(image, "n_frames", 1) if moves else 1
        """How many frames are shown."""

        self.turned: int | None = image.info.get("original_orientation")
        """The orientation by which the decoder itself has turned the pixels, as of a HEIC."""

        self._bits = 8  # as stored, where it is decoded to 8
        self._composed: Iterator[Image.Image] | None = None
        self._applications: set[str] = set()
        self.is_deep_ppm = self.format == "PPM" and is_deep_ppm(image)
        self._tile = image.tile[0] if self.format == "PPM" else None  # which loading forgets
        if self.chunks is not None:
            self._look_through_png(self.chunks)
        elif self.format == "GIF":
            self._look_through_gif()
        elif self.format == "JXL" and not getattr(image, "jpeg", False):
            self._look_through_jxl()
        elif self.format == "WEBP" and image.mode == "RGB" and self.count > 1:
            # What the frames leave out is clear, though the file may say that nothing is.
            self.image = Image.open(io.BytesIO(clear_webp(self._content())), formats=["WEBP"])
        elif self.format == "HEIF" and not re.search(b"irot|imir", self._content(_MOST_BOXES)):
            self.turned = None
        self.orientation = 1 if self.turned else orientation_of(self.image)
        """1 to 8 as in EXIF: how the decoded pixels are still to be turned."""

        if self.format == "AVIF":  # whose EXIF Pillow lays out anew to put an orientation into it
            decoder: Any = getattr(image, "_decoder", None)
            stored = sound(lambda: decoder.get_info()[4])
            image.info["exif"] = stored or image.info.get("exif")

    def _look_through_png(self, chunks: Chunks) -> None:
        """Take from its chunks what Pillow was not given."""
        info = self.image.info
        info.update(chunks.info)
        if block := exif_block(info):
            info["exif"] = block  # where Pillow does not look for it
        if getattr(self.image, "default_image", False):
            self.count -= 1
            self.notes["the picture that stands in for the animation is left out"] = None
        if not self.is_still_png:
            self._bits = chunks.kind[0]
            self._composed = self._frames(png_frames(self.stream, chunks))

    def _look_through_gif(self) -> None:
        """Find what Pillow does not say: XMP, others' blocks, what stands behind the end."""
        position = self.stream.tell()
        data = self._content()
        blocks, self.behind = gif_blocks(data)
        self.stream.seek(position)
        info = self.image.info
        for block in blocks:
            if block.startswith(b"!\xff\x0bXMP DataXMP"):  # before a trailer, as it is
                info["xmp"] = block[14:-258]
            elif block.startswith(_OF_ANIMATIONS):
                if block[14:16] == b"\3\1":
                    repeated = int.from_bytes(block[16:18], "little")
                    info["loop"] = repeated + 1 if repeated else 0
            elif block.startswith(b"!\xff"):
                self._applications.add(block[3:11].decode("latin-1"))
        if self.count > 1 or self.image.tile[0].extents != (0, 0, *self.size):
            self._composed = self._frames(gif_frames(data, blocks))

    def _look_through_jxl(self) -> None:
        """Find what its decoder does not say: XMP, further frames, by what it has turned it."""
        data = self._content()
        self.image.info["xmp"] = dict(boxes_of(data)).get(b"xml ", b"")
        _, orientation, moves, bits = jxl_header(data)
        self.turned = orientation if orientation > 1 else None
        self._bits = 8 if self.image.mode.startswith("I") else bits
        if moves:
            self.notes["JPEG XL: the first frame of its animation is read"] = None

    # ---- what the header says -------------------------------------------------------------

    def header(self) -> Header:
        """Return what the file says before it is decoded; of a GIF the channels of its palette."""
        image = self.image
        width, height = upright_size(self.size, self.orientation)
        wide = image.mode.startswith("I") or self.is_deep_ppm
        channels = 1 if Image.getmodebase(image.mode) == "L" else 3
        alpha = image.has_transparency_data or self._composed is not None
        if self.chunks is not None:
            depth, colour_type, _ = self.chunks.kind
            wide = depth == 16 and self.is_still_png
            channels, alpha = 3 if colour_type & 2 else 1, image.has_transparency_data
        return Header(
            width=width,
            height=height,
            frames=self.count,
            channels=channels,
            alpha=alpha,
            bits=16 if wide else 8,
            coding=coding_of(image, self.stream),
        )

    @property
    def is_still_png(self) -> bool:
        """Whether it is a PNG without an animation."""
        return self.chunks is not None and self.chunks.find(b"acTL") is None

    # ---- decoding -------------------------------------------------------------------------

    def pictures(self) -> Iterator[Picture]:
        """Decode one frame after the other."""
        description = None
        for number in range(self.count):
            pixels, alpha = self._decoded(number)
            if description is None:  # after decoding: the comment of a GIF may come late
                description = self.described(pixels.shape[2])
            if self.count > 1 and alpha is not None and int(alpha.min()) == 255:
                alpha = None
            duration = float(self.image.info.get("duration", 0)) if self.count > 1 else None
            yield Picture(pixels=pixels, alpha=alpha, metadata=description, duration=duration)

    def described(self, channels: int) -> Metadata:
        """Collect what is said of grey (1) or RGB (3) pixels, and note what is going to be lost."""
        size = upright_size(self.size, self.orientation)
        turned = self.turned or self.orientation
        metadata = metadata_of(self.image, channels, turned, size, self.notes)
        self._announce(metadata.xmp or b"")
        return metadata if self.image.mode in CONVERTED else self._coloured(metadata, channels)

    def _announce(self, packet: bytes) -> None:
        further = 0 if self.chunks else int(getattr(self.image, "n_frames", 1)) - self.count
        boxed = self.format in {"AVIF", "HEIF", "JXL", "WEBP"}
        boxes = self._content(_MOST_BOXES) if boxed else b""
        if (bits := max(self._bits, av1_bits(boxes))) > 8:
            self.notes[f"{self.format} of {bits} bits read at 8 bits"] = None
        parts = left_behind(self.image, further, packet, boxes)
        if self.format == "AVIF" and _CLEAN_APERTURE in boxes:
            parts.append("its clean aperture: all of it is shown")
        if self.format == "BMP" and self._content(74)[70:] == b"DEBM":
            parts.append("an ICC profile")
        parts += [f"data of {name}" for name in sorted(self._applications)]
        parts += parts_beside(self._content()) if boxed else []
        parts += self.chunks.unknown if self.chunks else []
        if self.behind is None:
            self.notes[_NO_END if self.format != "GIF" else _CUT_GIF] = None
        elif self.behind and not (self.format == "JPEG" and parts):  # it may be what is named
            parts.append("data behind its end mark")
        if parts:
            self.notes[f"left out: {', '.join(dict.fromkeys(parts))}"] = None

    @cached_property
    def behind(self) -> bytes | None:
        """The beginning of what follows its picture, where that is known; ``None``: no end mark."""
        if self.chunks is not None:
            return self.chunks.behind
        if self._tile is not None:
            return behind_ppm(self.image, self._tile, self._content(), is_deep=self.is_deep_ppm)
        return behind_jpeg(self.stream, self._start) if self.format == "JPEG" else b""

    def _content(self, most: int = -1) -> bytes:
        self.stream.seek(0)
        return self.stream.read(most)

    def _decoded(self, number: int) -> tuple[Levels, Levels | None]:
        """Decode pixels and opacity of a frame, counted from 0, turned upright."""
        image: Image.Image = self.image
        if self.is_deep_ppm:
            return ppm_levels(self.image, self._content()), None
        if self.is_still_png:
            return self._by_libvips()
        if self._composed is not None:
            if (frame := next(self._composed, None)) is None:
                raise EOFError("unexpected end of file")
            return levels_of(frame, self.orientation)
        if self.count > 1:  # of a HEIC the first need not be the main one, which is read
            self.image.seek(number)
        try:
            image.load()
        except OSError:
            completed = _completed(self._content()) if self.format == "JPEG" else None
            if completed is None:
                raise
            image = completed
        if image.mode in CONVERTED:
            image, note = rgb_of(image)
            self.notes[note] = None
        return levels_of(image, self.orientation)

    def _frames(self, parts: Iterable[tuple[tuple[int, ...], bytes]]) -> Iterator[Image.Image]:
        """Compose the frames of an animated PNG (PNG 3, 11.3.6.2) or of a GIF."""
        canvas = Image.new("RGBA", self.size)
        for numbers, still in parts:
            width, height, left, top, count, unit, disposal, blend = numbers
            check_pixels((width, height), 1, self.limit)
            box = (left, top, left + width, top + height)
            image: Image.Image = Image.open(io.BytesIO(still))
            if image.mode.startswith("I"):  # 16 bits of grey, which convert would cut off
                image = image.point(lambda level: level / 257 + 0.5).convert("L")
            frame, before = image.convert("RGBA"), canvas.crop(box)
            if blend:
                canvas.alpha_composite(frame, box[:2])
            else:
                canvas.paste(frame, box)
            self.image.info["duration"] = 1000 * count / (unit or 100)
            yield canvas.copy()
            if disposal:
                canvas.paste(before if disposal == 2 else 0, box)

    def _by_libvips(self) -> tuple[Levels, Levels | None]:
        """Decode a still PNG."""
        try:
            pixels = decoded("pngload_buffer", self._content(), self.size)
        except OSError as error:
            if self.behind is not None:
                raise
            raise EOFError("unexpected end of file") from error
        colours = 1 if pixels.shape[2] < 3 else 3
        alpha = pixels[..., colours:] if pixels.shape[2] > colours else None
        return upright(pixels[..., :colours], alpha, self.orientation)

    def _coloured(self, metadata: Metadata, channels: int) -> Metadata:
        """Find the profile that holds: the file's, or one of what the file says instead."""
        profile, chunks = metadata.icc_profile, self.chunks
        if chunks is None:
            boxed = profile is None and self.format in {"AVIF", "HEIF"}
            chunks = colour.nclx_in(self._content(_MOST_BOXES) if boxed else b"")
        kept = chunks.of_colours()
        is_hdr = colour.hdr_of(kept) is not None
        if kept:
            described = colour.from_png(chunks, channels)
        else:
            described = sound(lambda: colour.adobe_rgb_of(self.image.getexif(), channels))
        if self.chunks is None and not is_hdr:
            kept = ()
        if kept and profile is not None:
            kept += ((b"iCCP", profile),)
        if chunks.find(b"cICP") is not None and not is_hdr:  # which comes before a profile
            profile = None
        return replace(metadata, icc_profile=profile or described, colour_chunks=kept)


def _completed(data: bytes) -> Image.Image | None:
    """Decode a JPEG without end mark; ``None`` where more is missing.

    Then its last pixels would hang on what stands behind: no decoder says so of the last rows.
    """
    for ended in (data, data.rstrip(b"\0")):
        with suppress(Exception):
            files = (io.BytesIO(ended + more + b"\xff\xd9") for more in (b"", bytes(range(1, 99))))
            image, other = (Image.open(file, formats=["JPEG"]) for file in files)
            if ImageChops.difference(image, other).getbbox() is None:
                return image
    return None
