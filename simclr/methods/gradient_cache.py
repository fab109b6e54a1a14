"""Large batches in little memory, for losses that compare all images of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(project: Callable[[Tensor], Tensor], views: Tensor, chunk_size: int | None) -> Tensor:
    """`project(views)`, of which no more than a chunk is ever in memory with its activations.

    The gradient cache of Gao et al. 2021 (arXiv 2101.06983): each chunk is projected without
    keeping what its gradient would need; the loss is taken over the projections of all chunks;
    when its gradient with respect to the projections is there, each chunk is projected again and
    the gradient goes through it. A step takes up to a third longer. Random numbers that `project`
    draws are the same both times (the views are drawn once, before).

    The gradient is that of the plain step, but for batch norm: its statistics are then those of a
    chunk, so chunks should stay large, and its running averages count every chunk twice.

    Parameters
    ----------
    project : function of (m, c, v, v) to (m, d)
    views : Tensor, shape (n, c, v, v)
    chunk_size : int, optional
        Views in a chunk; None projects all at once.

    Returns
    -------
    Tensor, shape (n, d)
    """
    if chunk_size is None or chunk_size >= len(views):
        return project(views)
    chunks = views.split(chunk_size)
    if len(chunks[-1]) == 1:  # batch norm has nothing to compare a single view with
        chunks = (*chunks[:-2], torch.cat(chunks[-2:]))
    return torch.cat([checkpoint(project, chunk, use_reentrant=False) for chunk in chunks])
