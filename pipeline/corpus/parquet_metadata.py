"""Metadata of .parquet files of a corpus, read in a child process, because a damaged footer can end the process.

pyarrow turns most damage into an error, but some of its checks raise inside functions that must not, and then C++
aborts the whole process. That must cost the file, and not the job. One child reads all files, until it dies.
"""

import json
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from types import TracebackType

from logitcask.pipeline.corpus.files import CorpusFile
from logitcask.pipeline.corpus.parquet import row_group_bytes

# How a process ends that dies of what it reads; a child that is killed was not the file's victim.
_FAULTS = {-signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGSEGV}
_FAILED = "null"


class MetadataReader:
    """Reads metadata in a child process, which is started when it is first needed and ends with the context."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "MetadataReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def row_group_bytes(self, file: CorpusFile) -> tuple[int, ...] | None:
        """As `corpus.parquet.row_group_bytes`; None if reading the metadata ends the process that reads.

        Raises:
            CorpusError, StorageError, OSError: As `corpus.parquet.row_group_bytes`.
        """
        if "memory://" in file.url:  # exists in this process only
            return row_group_bytes(file)
        answer = self._ask(file)
        if not answer and self._end() in _FAULTS:
            return None
        found = json.loads(answer or _FAILED)
        # The child did not die of the file: an error that is no damage, such as a missing file, is raised here.
        return row_group_bytes(file) if found is None else tuple(found)

    def _ask(self, file: CorpusFile) -> bytes:
        """The child's answer, a line of JSON; empty if it died."""
        if self._child is None:
            words = [sys.executable, "-m", __name__]
            pipe, null = subprocess.PIPE, subprocess.DEVNULL
            self._child = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=null)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            # By a pipe, since other users of this machine can read command lines, and URLs may hold credentials.
            question = json.dumps(asdict(replace(file, reads=None)))
            self._child.stdin.write(question.encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            return b""
        return self._child.stdout.readline()

    def _end(self) -> int | None:
        """Ends the child, which may have ended by itself, and returns its status."""
        if self._child is None:
            return None
        child, self._child = self._child, None
        child.communicate()
        return child.returncode


def main() -> None:
    """Answers until the input ends: the bytes of each row group, or null after an error that is no damage."""
    # An abort is expected here, so no memory image is kept of it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        try:
            answer = json.dumps(row_group_bytes(CorpusFile(**json.loads(line))))
        except Exception:
            answer = _FAILED
        print(answer, flush=True)


if __name__ == "__main__":
    main()
