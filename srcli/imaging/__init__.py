"""Files to pictures and back, with all that files hold beside the pixels.

The only package that knows Pillow and pyvips. It may import files and errors. Begin with
:mod:`srcli.imaging.images`, the face of the package, and :mod:`srcli.imaging.pictures`, what
travels. Then, by what they do:

- ``formats``: what each can hold, and how a file of it begins; ``opening``: limits and errors;
- in: ``reading`` opens a file, whole or by rows, and hands it to ``pillow`` (with ``headers`` and
  the ``chunks`` of a PNG) or to ``tiffs`` (with ``pages``); ``decoding`` gives the pixels;
- metadata: ``metadata`` collects it, ``embedding`` fits it to a format by ``exif`` (on ``ifd``)
  and ``xmp``; ``colour`` makes profiles of what a file says, and converts;
- out: ``writing`` adapts pictures and names the losses, then ``streaming`` writes stills and pages
  by rows, ``encoding`` all else.
"""
