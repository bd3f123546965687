"""Which images, and which part of each: CelebA, STL-10, folders; and how they are degraded.

It may import imaging, ops, files and errors. Begin with :mod:`srcli.data.sources`, then
:mod:`srcli.data.pool`, :mod:`srcli.data.sampling` and :mod:`srcli.data.loading`.
"""
