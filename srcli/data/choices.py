"""What a recipe or an option may name: plain Python, no torch."""

from typing import Literal

__all__ = ["DATASETS", "Augmentation", "Sampling", "Splitting"]

DATASETS = {"celeba": ("train", "valid", "test"), "stl10": ("unlabeled", "train", "test")}
"""The data sets that have a name, and the parts that may be asked for by ``name:part``."""

Splitting = Literal["held-out", "paper"]
Sampling = Literal["area", "epoch"]
Augmentation = Literal["turn", "mirror", "none"]
