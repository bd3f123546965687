"""XMP packets: what speaks of pixels follows them, what speaks of parts left behind goes.

XMP Specification (ISO 16684-1) and its parts; Metadata Working Group Guidelines 2.0 for regions.
A packet that declares entities is not parsed at all, so that none can blow up.
"""

import hashlib
import re
import struct
from collections.abc import Iterator
from typing import Any, Final
from xml.dom import expatbuilder, minidom
from xml.parsers.expat import ExpatError

from srcli.imaging.pictures import Picture, turned_point

_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF: Final = "http://ns.adobe.com/tiff/1.0/"
_EXIF: Final = "http://ns.adobe.com/exif/1.0/"
_NOTE: Final = "http://ns.adobe.com/xmp/note/"
_PANORAMA: Final = "http://ns.google.com/photos/1.0/panorama/"
_DIMENSIONS: Final = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_AREA: Final = "http://ns.adobe.com/xmp/sType/Area#"
_REGION: Final = "http://ns.microsoft.com/photo/1.2/t/Region#"
_CROP: Final = "http://ns.adobe.com/camera-raw-settings/1.0/"
_DJI: Final = "http://www.dji.com/drone-dji/1.0/"
_IPTC: Final = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_GEO: Final = "http://www.w3.org/2003/01/geo/wgs84_pos#"
_PHOTOSHOP: Final = "http://ns.adobe.com/photoshop/1.0/"
_XAP: Final = "http://ns.adobe.com/xap/1.0/"
_XMLNS: Final = "http://www.w3.org/2000/xmlns/"

_FOLLOWING: Final = {
    (_TIFF, "ImageWidth"): "width",
    (_EXIF, "PixelXDimension"): "width",
    (_TIFF, "ImageLength"): "height",
    (_EXIF, "PixelYDimension"): "height",
}
"""Properties that state a side of the picture."""

_OF_PIXELS: Final = {
    _EXIF: "SubjectArea|SubjectLocation|FocalPlane[XY]Resolution",
    _DJI: "CalibratedFocal|CalibratedOptical|DewarpData",
    _IPTC: "ImageRegion$",
    _CROP: "Crop(Width|Height)",
}
"""How the names of properties begin, by their space, that count in pixels of the old picture."""

_STALE: Final = {
    (_XAP, "Thumbnails"),
    (_NOTE, "HasExtendedXMP"),
    ("http://purl.org/dc/terms/", "provenance"),  # where content credentials are
    *((_TIFF, name) for name in ("BitsPerSample", "Compression", "PhotometricInterpretation")),
    *((_TIFF, name) for name in ("SamplesPerPixel", "PlanarConfiguration", "YCbCrSubSampling")),
    (_EXIF, "CompressedBitsPerPixel"),
}
"""What was true of the old file alone."""

_LEFT_BEHIND: Final = (
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/dd/1.0/",
    "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/",
    "http://ns.apple.com/depthData/",
    "http://ns.apple.com/pixeldatainfo/1.0/",
)
"""How the names begin of what describes videos, depth, gain maps and further pictures."""

_MOST: Final = 1 << 24
"""Bytes of a packet that is looked into; no sound one comes near."""

_LONG: Final = 1024
"""Letters of an attribute that goes into the extension, such as notes of phones."""

_LINE, _TAB = "\ufdd0", "\ufdd1"
"""No characters: what stands for a new line and a tab in attributes."""

_PLACE: Final = re.compile(
    "gps|latitude|longt?itude|altitude|^(location.*|shotLocation|sub-?location|city|state|"
    "province(-?state)?|country.*|worldregion)$",
    re.IGNORECASE,
)
"""What is in the names of properties that say where a picture was taken, also in DJI's way."""

_UNREADABLE: Final = (ValueError, OverflowError, ExpatError, RecursionError)
"""What is raised where a packet must not, or cannot, be parsed, or states no sound numbers."""

_Node = minidom.Element | minidom.Attr


# ---- reading and writing ------------------------------------------------------------------


class _Builder(expatbuilder.ExpatBuilderNS):
    """Builds a document that declares nothing."""

    def start_doctype_decl_handler(self, *_: object) -> None:
        raise ValueError("entities")


def _parsed(packet: bytes) -> minidom.Document:
    """Parse a packet; it raises one of :data:`_UNREADABLE` if it is too long or no such XML."""
    if len(packet) > _MOST:
        raise ValueError("too long")
    return _Builder().parseString(packet.strip(b"\0 \r\n\t").removeprefix(b"\xef\xbb\xbf"))


def _serialised(document: minidom.Document) -> bytes:
    for node in _nodes(document):
        if isinstance(node, minidom.Attr):  # Python before 3.13 would make them spaces
            node.value = node.value.replace("\n", _LINE).replace("\t", _TAB)
    text = "\n".join(node.toxml() for node in document.childNodes)
    return text.replace(_LINE, "&#10;").replace(_TAB, "&#9;").encode()


def _local(node: minidom.Node | None) -> str:
    return getattr(node, "localName", None) or ""


def _descriptions(document: minidom.Document) -> list[minidom.Element]:
    """List what holds the properties of the packet itself."""
    found = document.getElementsByTagNameNS(_RDF, "Description")
    return [each for each in found if _local(each.parentNode) == "RDF"]


def _nodes(document: minidom.Document, space: str | None = None) -> list[_Node]:
    """List all elements and attributes, or those of a name space."""
    found: list[_Node] = []
    for element in document.getElementsByTagName("*"):
        found += [element, *element.attributes.values()]
    return [each for each in found if space is None or each.namespaceURI == space]


def _text(node: _Node) -> str:
    if isinstance(node, minidom.Attr):
        return node.value
    return "".join(child.data for child in node.childNodes if isinstance(child, minidom.Text))


def _put(node: _Node, value: str) -> None:
    if isinstance(node, minidom.Attr):
        node.value = value
        return
    _take_out(*node.childNodes)
    text = minidom.Text()
    text.data = value
    node.appendChild(text)


def _take_out(*nodes: Any) -> None:  # noqa: ANN401 - of any parent
    for node in nodes:
        if isinstance(node, minidom.Attr) and node.ownerElement is not None:
            node.ownerElement.removeAttributeNode(node)
        elif node.parentNode is not None:
            node.parentNode.removeChild(node)


# ---- what follows the pixels --------------------------------------------------------------


def fitted_xmp(picture: Picture) -> tuple[bytes | None, tuple[str, ...]]:
    """Make a picture's XMP speak of the pixels that are going to be written; name what is lost."""
    packet = picture.metadata.xmp
    if not packet:
        return None, ()
    try:
        document = _parsed(packet)
        before = _serialised(document)
        notes = dict.fromkeys(_fitted(document, picture))
        after = _serialised(document)
        return (packet if after == before else after), tuple(notes)
    except _UNREADABLE:
        return None, ("XMP cannot be read safely: dropped",)


def _fitted(document: minidom.Document, picture: Picture) -> Iterator[str]:
    for node in _nodes(document):
        space, name = node.namespaceURI or "", _local(node)
        bare = picture.metadata.icc_profile is None and space == _PHOTOSHOP
        if _is_left_behind(space, name) or (bare and name in {"ColorMode", "ICCProfile"}):
            _take_out(node)
        elif (space, name) == (_TIFF, "Orientation"):
            _put(node, "1")
        elif (space, name) in _FOLLOWING:
            _put(node, str(getattr(picture, _FOLLOWING[space, name])))
        elif _is_of_pixels(space, name, turned=picture.metadata.orientation != 1):
            _take_out(node)
            yield f"XMP {'crop' if space == _CROP else name} cannot follow the pixels: dropped"
    yield from _panorama(document, picture)
    yield from _areas(document, picture)
    _regions(document, picture)


def _is_left_behind(space: str, name: str) -> bool:
    of_video = "MotionPhoto|MicroVideo" + "|VideoLength|LivePhoto" * ("/camera/" in space)
    video = re.search(of_video, name)
    return bool(video) or (space, name) in _STALE or space.startswith(_LEFT_BEHIND)


def _is_of_pixels(space: str, name: str, *, turned: bool) -> bool:
    """Whether a property speaks of the old pixels: DJI's of its camera, crops of a raw's parts."""
    pattern = _OF_PIXELS.get(space)
    if space == _CROP and turned:
        pattern = "Crop(?!ConstrainToWarp)"
    return pattern is not None and re.match(pattern, name) is not None


def _panorama(document: minidom.Document, picture: Picture) -> Iterator[str]:
    """Scale the sizes of a photo sphere, in pixels."""
    width, height = picture.metadata.size or (picture.width, picture.height)
    nodes = _nodes(document, _PANORAMA)
    pixels = re.compile(r"(?:Cropped|Full|LargestValid).*(Left|Width|Top|Height)(?:Pixels)?$")
    found = [(node, match[1]) for node in nodes if (match := pixels.match(_local(node)))]
    if found and picture.metadata.orientation != 1:
        yield "the sizes of a photo sphere (GPano) cannot follow the pixels: dropped"
        _take_out(*nodes)
        return
    for node, side in found:
        ratio = picture.width / width if side in {"Left", "Width"} else picture.height / height
        _put(node, str(round(float(_text(node)) * ratio)))


def _areas(document: minidom.Document, picture: Picture) -> Iterator[str]:
    """Turn the regions of the Metadata Working Group, and state the size they apply to."""
    orientation = picture.metadata.orientation
    for element in document.getElementsByTagName("*"):
        values = _numbers(element, _DIMENSIONS, "w", "h")
        measure = _property(element, _DIMENSIONS, "unit")
        if values and (measure is None or _text(measure).lower().startswith("pixel")):
            _set(element, _DIMENSIONS, w=picture.width, h=picture.height)
        places = _numbers(element, _AREA, "x", "y")
        if places is None or orientation == 1:
            continue
        unit = _property(element, _AREA, "unit")
        if unit is not None and _text(unit) != "normalized":
            yield "XMP regions cannot follow the pixels: dropped"
            _take_out(element)
            continue
        x, y = turned_point(*places, orientation)
        sides = _numbers(element, _AREA, "w", "h") if orientation >= 5 else None
        _set(element, _AREA, x=x, y=y, **({"w": sides[1], "h": sides[0]} if sides else {}))


def _regions(document: minidom.Document, picture: Picture) -> None:
    """Turn the rectangles of Microsoft: left, top, width and height in parts of the sides."""
    orientation = picture.metadata.orientation
    rectangles = [each for each in _nodes(document, _REGION) if _local(each) == "Rectangle"]
    for node in rectangles if orientation != 1 else []:
        left, top, width, height = map(float, _text(node).split(","))
        x, y = turned_point(left + width / 2, top + height / 2, orientation)
        width, height = (height, width) if orientation >= 5 else (width, height)
        _put(node, ", ".join(f"{v:.6g}" for v in (x - width / 2, y - height / 2, width, height)))


def _property(element: minidom.Element, space: str, name: str) -> _Node | None:
    """Find a property of a structure, which is an attribute or an element."""
    children = (each for each in element.childNodes if isinstance(each, minidom.Element))
    child = next((e for e in children if (e.namespaceURI, e.localName) == (space, name)), None)
    return element.getAttributeNodeNS(space, name) or child


def _numbers(element: minidom.Element, space: str, *names: str) -> tuple[float, float] | None:
    try:
        found = [_property(element, space, name) for name in names]
        first, second = (float(_text(node)) for node in found if node is not None)
    except ValueError:
        return None
    return first, second


def _set(element: minidom.Element, space: str, **values: float) -> None:
    for name, value in values.items():
        node = _property(element, space, name)
        if node is not None:
            _put(node, f"{value:.9g}")


# ---- long packets, and the place ----------------------------------------------------------


def is_place(name: str) -> bool:
    """Whether a property of this name says where a picture was taken."""
    return _PLACE.search(name) is not None


def without_location(packet: bytes) -> bytes | None:
    """Take places and their names out of a packet; None where it cannot be looked into."""
    try:
        document = _parsed(packet)
        _take_out(*(e for e in _nodes(document) if is_place(_local(e)) or e.namespaceURI == _GEO))
        return _serialised(document)
    except _UNREADABLE:
        return None


def joined(packet: bytes, extension: bytes) -> bytes:
    """Put the extension of a JPEG's XMP back into its packet, if both can be read."""
    try:
        document, more = _parsed(packet), _parsed(extension)
        roots = document.getElementsByTagNameNS(_RDF, "RDF")
        for description in _descriptions(more) if roots else []:
            _declare(description)
            roots[0].appendChild(document.importNode(description, True))
        return _serialised(document)
    except _UNREADABLE:
        return packet


def _declare(element: minidom.Element) -> None:
    """Repeat in an element the prefixes that are declared around it."""
    around = element.parentNode
    while isinstance(around, minidom.Element):
        for attribute in list(around.attributes.values()):
            if attribute.name.startswith("xmlns") and not element.hasAttribute(attribute.name):
                element.setAttribute(attribute.name, attribute.value)
        around = around.parentNode


def split(packet: bytes, most: int) -> tuple[bytes, tuple[bytes, ...]] | None:
    """Divide a packet that is too long for one segment of a JPEG (ISO 16684-3, section 1.1.3.1).

    Returns:
        The main packet, of ``most`` bytes, with the properties that are short attributes, and the
        contents of the segments that hold the others; None where it cannot be divided.
    """
    if len(packet) <= most:
        return packet, ()
    try:
        document, rest = _parsed(packet), _parsed(packet)
        (root,) = rest.getElementsByTagNameNS(_RDF, "RDF")
        first, *_ = _descriptions(document)
    except _UNREADABLE:
        return None
    for kept, moved in zip(_descriptions(document), _descriptions(rest), strict=True):
        _take_out(*kept.childNodes)
        for element, moves in ((kept, True), (moved, False)):
            for each in list(element.attributes.values()):
                if each.namespaceURI not in {_RDF, _XMLNS} and (len(each.value) > _LONG) is moves:
                    _take_out(each)
    _declare(root)
    extension = root.toxml().encode()
    name = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()
    first.setAttribute("xmlns:xmpNote", _NOTE)
    first.setAttribute("xmpNote:HasExtendedXMP", name)
    main, step = _serialised(document), most - 256
    head = b"http://ns.adobe.com/xmp/extension/\0" + name.encode()
    segments = (
        head + struct.pack(">II", len(extension), start) + extension[start : start + step]
        for start in range(0, len(extension), step)
    )
    return (main, tuple(segments)) if len(main) <= most else None
