"""One array of an NPZ file as a stream of rows: `numpy.load` would take the whole array into memory, and trusts its header."""

from __future__ import annotations

import io
import math
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BYTES = 1 << 28
"""Most that is taken into memory at once."""
_CHUNK = 1 << 20


class BadArray(ValueError):
    """The array is not what its header says, or nothing that scores could be."""


class ArrayReader:
    """Reads an array row by row, where a row is everything but the first axis, flattened; a flat array has rows of one.

    Args:
        file: at the beginning of the `.npy` data.
        size: bytes that the archive says it has.
        name: for messages.

    Raises:
        BadArray: a pickled array, rows or a column-major array too large for memory, or a size that contradicts the header.
    """

    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self._file, self._name = file, name
        self.shape, column_major, self.dtype = _read_header(file, name)
        self.rows = self.shape[0] if self.shape else 1
        self.row_size = math.prod(self.shape[1:])
        needed = self.rows * self.row_size * self.dtype.itemsize
        if file.tell() + needed != size:
            raise BadArray(f"{name}: shape {self.shape} of {self.dtype} takes {needed} bytes, the file has {size}")
        if (needed if column_major else self.row_size * self.dtype.itemsize) > MAX_BYTES:
            raise BadArray(f"{name}: shape {self.shape} is too large to be read in rows")
        if column_major:
            self._file = self._by_rows(needed)

    def _by_rows(self, size: int) -> IO[bytes]:
        """A column-major array (somebody saved a transposed one) has its rows only once it is whole."""
        import numpy as np

        data = self._file.read(size)
        if len(data) < size:
            raise BadArray(f"{self._name}: the data ends {size - len(data)} bytes early")
        return io.BytesIO(np.frombuffer(data, self.dtype).reshape(self.shape, order="F").tobytes())

    def read_rows(self, count: int) -> NDArray[Any]:
        """The next `count` rows, [count, row_size]; [count] of a flat array.

        Raises:
            BadArray: the data ends before.
        """
        import numpy as np

        wanted = count * self.row_size * self.dtype.itemsize
        data = self._file.read(wanted)
        if len(data) < wanted:
            raise BadArray(f"{self._name}: the data ends {wanted - len(data)} bytes early")
        values: NDArray[Any] = np.frombuffer(data, self.dtype)
        return values if len(self.shape) <= 1 else values.reshape(count, self.row_size)


def read_to_end(file: IO[bytes]) -> None:
    while file.read(_CHUNK):
        pass


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, whether column-major, dtype."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise BadArray(f"{name}: NPY version {version} is not supported")
    if dtype.hasobject:
        raise BadArray(f"{name}: holds pickled Python objects")
    return shape, fortran and len(shape) > 1, dtype
