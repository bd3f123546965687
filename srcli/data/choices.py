"""The ways to draw patches that a recipe may name: plain Python, no torch."""

from typing import Literal

__all__ = ["Augmentation", "Sampling", "Splitting"]

Splitting = Literal["held-out", "paper"]
Sampling = Literal["area", "epoch"]
Augmentation = Literal["turn", "mirror", "none"]
