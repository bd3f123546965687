"""Files in, larger files out: ``srcli upscale``.

It may import the upscaler and all below it, never evaluation. Begin with
:mod:`srcli.upscaling.batch`: it reads, enlarges and writes what :mod:`srcli.upscaling.plan` has
listed.
"""
