"""What a check finds: faults, which make it fail, and notes, which do not."""

from dataclasses import dataclass

from logitcask.schemas.errors import LogitcaskError, StorageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A damaged or missing file, or a violation of the format.

    Attributes:
        path: The file, relative to the dataset's directory.
        error: Name of the error's class.
        what: What was found, and what to do.
    """

    path: str
    error: str
    what: str

    @classmethod
    def of(cls, path: str, error: LogitcaskError) -> "Fault":
        """The fault that reading a file raised.

        Raises:
            StorageError: The error is one: a store that is away says nothing about its files.
        """
        if isinstance(error, StorageError):
            raise error
        return cls(path=path, error=type(error).__name__, what=str(error))

    @classmethod
    def damaged(cls, path: str, what: str) -> "Fault":
        """A file that does not hold what was written, or what it must."""
        return cls(path=path, error="CorruptShardError", what=what)


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """A file that is not needed, or that cannot be checked completely.

    Attributes:
        path: The file, relative to the dataset's directory.
        what: What it is, and what can be done.
    """

    path: str
    what: str


Finding = Fault | Note
