"""The header of a GGUF file: its settings and the shapes of its tensors, without tensors or vocabularies.

Strings of long arrays are skipped, not kept, so a file with 262,144 pieces is described in well under a second; the
`gguf` package builds an object for each piece and needs ten times as long.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logitcask.schemas.errors import TeacherError

_SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
# Such as a number for each layer.
_KEPT_ELEMENTS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufHeader:
    """Settings and tensor shapes of a GGUF file.

    Attributes:
        settings: Key to scalar or string; arrays are left out.
        array_lengths: Key to number of elements, for arrays.
        arrays: Key to elements, for arrays of at most 1,024 numbers.
        shapes: Tensor name to shape, slowest dimension first as in torch.
    """

    settings: dict[str, Any]
    array_lengths: dict[str, int]
    arrays: dict[str, tuple[Any, ...]]
    shapes: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        return self.settings["general.architecture"]

    def setting(self, name: str) -> Any:
        """The setting `name` of the file's architecture, or None."""
        return self.settings.get(f"{self.architecture}.{name}")


def read_gguf_header(path: str | Path) -> GgufHeader:
    """Reads the header of a file.

    Raises:
        TeacherError: The file is not GGUF, has an unknown version, or ends inside its header.
    """
    with Path(path).open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Cursor(data).header()
        except (struct.error, UnicodeDecodeError, KeyError, ValueError, OverflowError, MemoryError) as e:
            raise TeacherError(f"{path} is not a readable GGUF file: {e}. Download it again.") from e


class _Cursor:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def header(self) -> GgufHeader:
        if self.data[:4] != b"GGUF":
            raise ValueError(f"it begins with {bytes(self.data[:4])!r}, not with b'GGUF'")
        self.at = 4
        version, num_tensors, num_settings = self.unpack("IQQ")
        if version not in _VERSIONS:
            raise ValueError(f"its version is {version}; known are {_VERSIONS}")
        settings, array_lengths, arrays = self.settings(num_settings)
        shapes = dict(self.tensor() for _ in range(num_tensors))
        return GgufHeader(settings=settings, array_lengths=array_lengths, arrays=arrays, shapes=shapes)

    def unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def string(self) -> str:
        (size,) = self.unpack("Q")
        if self.at + size > len(self.data):
            raise ValueError("it ends inside its header")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def settings(self, count: int) -> tuple[dict[str, Any], dict[str, int], dict[str, tuple[Any, ...]]]:
        scalars: dict[str, Any] = {}
        array_lengths: dict[str, int] = {}
        arrays: dict[str, tuple[Any, ...]] = {}
        for _ in range(count):
            key = self.string()
            (kind,) = self.unpack("I")
            if kind == _ARRAY:
                array_lengths[key], elements = self.array()
                if elements is not None:
                    arrays[key] = elements
            else:
                scalars[key] = self.string() if kind == _STRING else self.unpack(_SCALAR_FORMATS[kind])[0]
        return scalars, array_lengths, arrays

    def array(self) -> tuple[int, tuple[Any, ...] | None]:
        """Length, and the elements if they are few numbers."""
        kind, length = self.unpack("IQ")
        if kind != _STRING:
            layout = f"{length}{_SCALAR_FORMATS[kind]}"
            if length <= _KEPT_ELEMENTS:
                return length, self.unpack(layout)
            self.at += length * struct.calcsize("<" + _SCALAR_FORMATS[kind])
            return length, None
        for _ in range(length):
            (size,) = struct.unpack_from("<Q", self.data, self.at)
            self.at += 8 + size
        return length, None

    def tensor(self) -> tuple[str, tuple[int, ...]]:
        name = self.string()
        (num_dimensions,) = self.unpack("I")
        fastest_first = self.unpack(f"{num_dimensions}Q")
        self.unpack("IQ")  # storage type, offset
        return name, fastest_first[::-1]
