"""Files to pictures and back, with all that files hold beside the pixels.

The only package that knows Pillow and pyvips. It may import files and errors. Begin with
:mod:`srcli.imaging.images`, the face of the package.
"""
