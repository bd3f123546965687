"""Scores by the literature's protocol: ``srcli eval``.

It may import the upscaler, training's curves and all below them, never upscaling. Begin with
:mod:`srcli.evaluation.evaluate`.
"""
