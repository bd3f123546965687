"""Weights out of images: ``srcli train``.

It may import model, data and all below them, never the upscaler. Begin with
:mod:`srcli.training.trainer`, then :mod:`srcli.training.config`.
"""
