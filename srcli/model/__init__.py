"""The one net that training, evaluation and upscaling share; it may import ops, files and errors.

Read ``config`` (its shape), ``network`` and ``weights`` (its files) first; then how a picture goes
through it: ``patches`` (steps and blocks) with ``rows`` (what arrives from above), ``runner``
(number formats, devices), ``batches`` (how much at a time, and the memory and seconds it takes).
"""
