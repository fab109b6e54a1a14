"""A NumPy file that grows by rows: it is a whole `.npy` file once it is finished."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

# NumPy leaves room in the header for a growing first axis; this many bytes hold any of ours.
_HEADER_BYTES = 128


class RowFile:
    """Rows of one shape and type, appended in order.

    Parameters
    ----------
    path : Path
        The `.npy` file.
    dtype : data type of NumPy
    row_shape : tuple of int
        Shape of one row; () for a number.

    Attributes
    ----------
    count : int
        Rows written.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.row_shape = path, np.dtype(dtype), row_shape
        self.row_bytes = self.dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
        self.count = 0
        if not path.is_file():
            path.write_bytes(bytes(_HEADER_BYTES))

    def append(self, rows: np.ndarray) -> None:
        """Write rows, shape (n, *row_shape), and wait until the disk has them."""
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(rows, dtype=self.dtype).tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.count += len(rows)

    def truncate(self, count: int) -> None:
        """Drop all rows after the first `count`."""
        os.truncate(self.path, _HEADER_BYTES + count * self.row_bytes)
        self.count = count

    def finish(self) -> None:
        """Write the header: from now on `numpy.load` reads the file."""
        shape = (self.count, *self.row_shape)
        header = repr(
            {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        )
        room = _HEADER_BYTES - npy.MAGIC_LEN - 2
        body = header.ljust(room - 1).encode("latin1") + b"\n"
        with self.path.open("r+b") as file:
            file.write(npy.magic(1, 0) + room.to_bytes(2, "little") + body)
