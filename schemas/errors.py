"""Every error a user can cause, by name.

The message says what is wrong, where (file, row, offset), what was found, and what to do. The command line prints
it without a traceback and ends with `exit_status`.
"""


class LogitcaskError(ValueError):
    """Bad data or bad state; the command ends with status 1."""

    exit_status = 1


class UsageError(LogitcaskError):
    """Options that cannot be meant; the command ends with status 2."""

    exit_status = 2


class CorpusError(LogitcaskError):
    """The corpus as a whole cannot be read: missing, empty, or changed under the job."""


class TeacherError(LogitcaskError):
    """The teacher cannot be found or loaded."""


class MemoryExhaustedError(LogitcaskError):
    """The smallest step of the work does not fit into memory."""


class TokenizerError(LogitcaskError):
    """There is no tokenizer, or it cannot do what is asked of it."""


class VocabularyError(LogitcaskError):
    """A token id lies outside a vocabulary."""


class NonFiniteError(LogitcaskError):
    """A model or a loss produced NaN or infinity."""


class UnknownFormatVersionError(LogitcaskError):
    """Written in a format version that this release does not know."""


class CorruptShardError(LogitcaskError):
    """A shard or a record does not hold what was written into it."""


class MissingShardError(LogitcaskError):
    """A file that a snapshot names is not there."""


class IncompleteDatasetError(LogitcaskError):
    """There is no complete snapshot to read."""


class UnknownDocumentError(LogitcaskError):
    """A snapshot holds no document of that id."""


class FingerprintMismatchError(LogitcaskError):
    """Two things that must belong together (tokenizer, vocabulary, teacher) do not."""


class ConfigurationMismatchError(LogitcaskError):
    """An output directory was begun under another configuration."""


class ForeignOutputError(LogitcaskError):
    """An output directory holds something that logitcask did not write."""


class StorageError(LogitcaskError):
    """A store refused, failed or could not be reached, also after its library had tried again."""


class ClusterError(LogitcaskError):
    """A cluster cannot be reached, or a worker of it is not set up as the job needs it."""
