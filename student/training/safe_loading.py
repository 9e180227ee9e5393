"""Loading a checkpoint runs no code of its own: only tensors, numbers and names are unpickled.

`transformers` reads `.pt` files with `weights_only=True`. Sharded checkpoints (FSDP) have two more readers in torch
that unpickle anything: values that are no tensors, and the file `.metadata`. The first obeys an environment variable,
the second is read here first, by an unpickler that knows a few names.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from logitcask.schemas.errors import CorruptShardError, LogitcaskError

_METADATA_NAME = ".metadata"
_METADATA_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"} | {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePosixPath"},
}
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def loading(checkpoint: str | Path | None) -> Iterator[None]:
    """While a checkpoint is loaded: unpickles nothing that could run code, and names the checkpoint in errors.

    Does nothing without a checkpoint.

    Raises:
        CorruptShardError: It cannot be read, or holds something else than tensors and numbers.
    """
    if checkpoint is None:
        yield
        return
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        for path in Path(checkpoint).rglob(_METADATA_NAME):
            with path.open("rb") as file:
                _MetadataUnpickler(file).load()
        yield
    except (LogitcaskError, torch.OutOfMemoryError):
        raise
    except UnpicklingError as error:
        raise CorruptShardError(
            f"{checkpoint}: holds something else than tensors and numbers, or is damaged; it was not loaded, because "
            f"that could run code ({str(error).splitlines()[0]}); use a checkpoint that you trust"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, AttributeError, SafetensorError) as error:
        raise CorruptShardError(f"{checkpoint}: cannot be loaded as a checkpoint of this student ({error})") from error
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


class _MetadataUnpickler(Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if global_name not in _METADATA_CLASSES.get(module_name, set()):
            raise UnpicklingError(f"{_METADATA_NAME} names {module_name}.{global_name}")
        return super().find_class(module_name, global_name)
