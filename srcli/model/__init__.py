"""The one net that training, evaluation and upscaling share.

Its configuration, the network, its weights files, and how a picture goes through it in patches. It
may import ops, files and errors. Begin with :mod:`srcli.model.network`.
"""
