"""Which images, and which part of each: CelebA, STL-10, folders.

It may import imaging, ops, files and errors. Begin with :mod:`srcli.data.sources`, then
:mod:`srcli.data.sampling`.
"""
