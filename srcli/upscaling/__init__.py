"""Files in, larger files out: ``srcli upscale``.

It may import the upscaler and all below it, never evaluation. Begin with
:mod:`srcli.upscaling.batch`: it does what :mod:`srcli.upscaling.plan` has listed, many files at a
time, each read, enlarged and written (``steps``). ``search`` finds the inputs, ``conflicts`` the
results that cannot be, ``estimate`` is the dry run, ``choose`` picks the weights of a file,
``share`` splits the list among processes.
"""
