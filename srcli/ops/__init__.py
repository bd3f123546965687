"""Pure functions on tensors and numbers: resampling, metrics, colour, devices, spans.

It may import errors alone. Begin with :mod:`srcli.ops.resample`.
"""
