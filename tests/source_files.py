"""What the tests of data sources share."""

import threading
import weakref

import numpy as np
import torch

from srcli.errors import ImageError


def keys(source):
    """List the names of all images."""
    return [source.key(index) for index in range(len(source))]


def planar(pixels):
    """Turn ``(H, W, C)`` into a tensor ``(C, H, W)``."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


class Album:
    """A source in memory whose images may be damaged, and which counts those read and those alive.

    Args:
        images: ``(H, W, C)`` arrays; what is not asked for pixels needs none.
        names: What they are called; None: 0.png, 1.png, ...
        damaged: Those that cannot be decoded.
        headless: Those whose size cannot be read either.
    """

    def __init__(self, images=(), names=None, damaged=(), headless=()):
        self.images, self.damaged, self.headless = images, {*damaged, *headless}, set(headless)
        self.names = names or [f"{number}.png" for number in range(len(images))]
        self.reads = self.most = 0
        self.living = []
        self.lock = threading.Lock()

    def __len__(self):
        return len(self.names)

    def key(self, index):
        """Name an image."""
        return self.names[index]

    def label(self, index):
        """Say where an image is."""
        return f"album/{self.names[index]}"

    def read(self, index):
        """Copy an image."""
        if index in self.damaged:
            raise ImageError(f"{index}.png: damaged")
        pixels = self.images[index].copy()
        with self.lock:
            self.reads += 1
            self.living = [one for one in self.living if one() is not None]
            self.living.append(weakref.ref(pixels))
            self.most = max(self.most, len(self.living))
        return pixels

    def size(self, index):
        """Return width and height."""
        if index in self.headless:
            raise ImageError(f"{index}.png: no header")
        height, width, _ = self.images[index].shape
        return width, height
