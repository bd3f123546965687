"""Files to pictures and back, with all that files hold beside the pixels.

The only package that knows Pillow and pyvips. It may import files and errors. Begin with
:mod:`srcli.imaging.images`, the face of the package, and :mod:`srcli.imaging.pictures`, what
travels. Then, by what they do:

- kinds: ``formats`` (what each can hold), ``kinds`` (what a file is by its first bytes);
- in: ``reading`` opens a file, whole or by rows, and hands it to ``pillow`` (with ``chunks`` of a
  PNG, ``boxes``, ``arrays``) or to ``tiffs`` (with ``pages``); ``opening`` has limits
  and errors, ``coding`` what headers say;
- metadata: ``metadata`` collects it, ``embedding`` fits it to a format by ``exif`` (on ``ifd``)
  and ``xmp``; ``colour`` makes profiles of what a file says, ``profiles`` converts;
- out: ``writing`` adapts pictures and names the losses, then ``streaming`` writes stills and pages
  by rows (``bands``), ``encoding`` all else.
"""
