"""Enlarge real photographs with one residual convolutional autoencoder."""

__all__ = ["__version__"]

__version__ = "0.1.0"
