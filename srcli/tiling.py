"""A picture through the net, block by block: enlarge, run, cut the context, hand on finished rows.

Pure tensors. The picture is never enlarged whole: each block's input is the bicubic filter's
result for that block's window alone, which is bit for bit what the whole picture's would be.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from srcli.degradation import bicubic
from srcli.geometry import Block, Span

__all__ = ["enlarge_rows"]


def enlarge_rows(
    image: Tensor,
    rows: Sequence[Block],
    columns: Sequence[Block],
    net: Callable[[Tensor], Tensor],
    batch_size: int,
) -> Iterator[tuple[Span, Tensor]]:
    """Enlarge a picture and yield its finished rows from top to bottom.

    Args:
        image: ``(C, H, W)``, integers or floating point in [0, 1].
        rows: Blocks that cover the output's height, in ascending order.
        columns: Blocks that cover its width.
        net: Maps ``(N, C, h, w)`` ``float32`` inputs to results of the same shape.
        batch_size: Windows per call of ``net``.

    Yields:
        The span of finished rows and their pixels, ``(C, rows, width)`` ``float32``, not clamped.
    """
    size = rows[-1].keep.stop, columns[-1].keep.stop
    for row in rows:
        band = torch.empty(image.shape[0], len(row.keep), size[1], device=image.device)
        # Only windows of one shape make a batch.
        for _, group in groupby(columns, key=lambda column: len(column.window)):
            same = list(group)
            for start in range(0, len(same), batch_size):
                chosen = same[start : start + batch_size]
                windows = torch.stack(
                    [bicubic(image, size, (row.window, column.window)) for column in chosen]
                )
                for column, result in zip(chosen, net(windows), strict=True):
                    inner = result[
                        :,
                        row.inner.start : row.inner.stop,
                        column.inner.start : column.inner.stop,
                    ]
                    band[:, :, column.keep.start : column.keep.stop] = inner
        yield row.keep, band
