"""Every error that a user can cause, by name.

The message says what is wrong, where (file, row, offset), what was found, and what to do. The command line prints the
message without a traceback and exits with `exit_status`.
"""


class LogitcaskError(ValueError):
    """Bad data or bad state; the command exits with status 1."""

    exit_status = 1


class UsageError(LogitcaskError):
    """Invalid options; the command exits with status 2."""

    exit_status = 2


class CorpusError(LogitcaskError):
    """The corpus as a whole cannot be read: it is missing or empty, or it changed during the job."""


class TeacherError(LogitcaskError):
    """The teacher cannot be found or loaded."""


class StudentError(LogitcaskError):
    """The weights of a student are missing, damaged or not finite."""


class MemoryExhaustedError(LogitcaskError):
    """A step of the work does not fit into memory.

    Attributes:
        can_halve: Whether the same step can be tried in pieces of half the size.
    """

    def __init__(self, message: str, *, can_halve: bool = False) -> None:
        super().__init__(message)
        self.can_halve = can_halve


class TokenizerError(LogitcaskError):
    """There is no tokenizer, or it lacks a required feature."""


class VocabularyError(LogitcaskError):
    """A token id is outside the vocabulary."""


class NonFiniteError(LogitcaskError):
    """A model or a loss produced NaN or infinity."""


class WrongTargetsError(LogitcaskError):
    """Targets that were just computed break a rule of the format, so they are not committed."""


class UnknownFormatVersionError(LogitcaskError):
    """A file has a format version that this release does not know."""


class UnknownSchemeError(UnknownFormatVersionError):
    """A kind of head scheme that this release, or one of its steps, does not know."""


class CorruptShardError(LogitcaskError):
    """A shard, a record or a checkpoint is damaged: it does not hold what was written into it."""


class MissingShardError(LogitcaskError):
    """A file that a snapshot names does not exist."""


class IncompleteDatasetError(LogitcaskError):
    """There is no complete snapshot to read."""


class UnknownDocumentError(LogitcaskError):
    """A snapshot has no document with that id."""


class FingerprintMismatchError(LogitcaskError):
    """Two things that must match (tokenizer, vocabulary, teacher) do not."""


class ConfigurationMismatchError(LogitcaskError):
    """An output directory was started with another configuration."""


class ForeignOutputError(LogitcaskError):
    """An output directory holds something that logitcask did not write."""


class StorageError(LogitcaskError):
    """A store refused, failed or could not be reached: that says nothing about what it holds."""


class StoreAwayError(StorageError):
    """A store that did not refuse failed or could not be reached, and was not back in time."""


class ClusterError(LogitcaskError):
    """A cluster cannot be reached, or one of its workers lacks what the job needs."""
