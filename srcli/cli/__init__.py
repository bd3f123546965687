"""The command line, the only package that knows a terminal (typer, rich, tqdm).

It may import every other package, the verbs inside the command bodies alone, so that ``--help``
does not wait for torch. Begin with :mod:`srcli.cli.app`, then the module of a command.
"""
