"""Where the files of a dataset are, and its configuration file."""

from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.errors import ForeignOutputError, UnknownFormatVersionError

DATASET_VERSION = 1


CONFIGURATION_NAME = "logitcask.json"


def configuration_url(out: str) -> str:
    return storage.join(out, CONFIGURATION_NAME)


def shard_path(kind: str, split: str, name: str) -> str:
    """A shard's path, relative to the dataset's directory."""
    return f"{kind}/{split}/{name}.parquet"


def record_path(kind: str, split: str, name: str) -> str:
    """The path of the record beside a shard."""
    return f"{kind}/{split}/{name}.json"


def read_configuration(out: str) -> dict[str, Any] | None:
    """The configuration a dataset was begun with; None where nothing was begun.

    Raises:
        ForeignOutputError: The directory holds something, but not a dataset.
        UnknownFormatVersionError: Another version began it.
    """
    try:
        configuration = storage.read_json(configuration_url(out))
    except FileNotFoundError:
        return _nothing_begun(out)
    except ValueError as error:
        raise ForeignOutputError(f"{storage.redact(configuration_url(out))}: not JSON ({error})") from error
    version = configuration.get("dataset_version") if isinstance(configuration, dict) else None
    if version is None:
        raise ForeignOutputError(f"{storage.redact(configuration_url(out))}: not the configuration of a dataset")
    if version != DATASET_VERSION:
        raise UnknownFormatVersionError(
            f"{storage.redact(out)}: dataset version {version}; this release reads {DATASET_VERSION}; "
            "install a newer logitcask"
        )
    return configuration


def _nothing_begun(out: str) -> None:
    held = storage.list_files(out)
    if held:
        raise ForeignOutputError(
            f"{storage.redact(out)}: holds {len(held)} files but no {CONFIGURATION_NAME}, so it is not a dataset "
            f"(first file: {storage.redact(held[0].url)}); choose another output directory"
        )


def write_configuration(out: str, *, identity: dict[str, Any], environment: dict[str, Any]) -> bool:
    """Begins a dataset; False if somebody began it first."""
    value = {"dataset_version": DATASET_VERSION, "identity": identity, "environment": environment}
    return storage.create_json(configuration_url(out), value)
