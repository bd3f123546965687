"""The one net that training, evaluation and upscaling share; it may import ops, files and errors.

Begin with :mod:`srcli.model.network` and its shape in ``config``; ``weights`` are its files. A
picture goes through it in ``patches`` (steps, blocks, rows as they arrive), by the
``runner`` (number formats, devices). ``batches``: how much at a time, its memory and seconds.
"""
