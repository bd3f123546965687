"""Pure functions on tensors and numbers: resampling, degradation, metrics, colour, devices, spans.

It may import errors alone. Begin with :mod:`srcli.ops.degrade`.
"""
