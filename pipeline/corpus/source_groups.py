"""Which sources a corpus is made of, decided from its files alone, before the first unit runs."""

import posixpath
from collections.abc import Sequence

from logitcask.pipeline.corpus.files import CorpusFile
from logitcask.schemas import storage
from logitcask.schemas.stats.by_source import MAX_GROUPS, SourceGroups

_WILDCARDS = "*?["


def group_sources(patterns: Sequence[str], files: Sequence[CorpusFile]) -> SourceGroups:
    """Groups a corpus's files by the path they were given by, or by what lies directly below the only one.

    Where there are more than `MAX_GROUPS`, the groups with the most bytes keep their names (the first by name among
    equals), and all others have none: they are counted together.

    Args:
        patterns: Files, directories and globs as given.
        files: What they matched.
    """
    roots = {_fixed_url(pattern): storage.redact(pattern) for pattern in patterns}
    sizes: dict[tuple[str, str], int] = {}
    for file in files:
        url = file.redacted_url
        group = _below(url, next(iter(roots))) if len(roots) == 1 else _given(url, roots)
        sizes[group] = sizes.get(group, 0) + file.size_bytes
    largest = sorted(sizes, key=lambda group: (-sizes[group], group))
    kept = largest if len(largest) <= MAX_GROUPS else largest[: MAX_GROUPS - 1]
    return SourceGroups(prefixes=dict(sorted(kept)))


def _fixed_url(pattern: str) -> str:
    """The URL of a path up to its first component with a wildcard, spelt as listings spell it."""
    components = pattern.rstrip("/").split("/")
    first = next((i for i, one in enumerate(components) if any(c in one for c in _WILDCARDS)), len(components))
    fs, path = storage.filesystem("/".join(components[:first]))
    return storage.redact(path if storage.is_local(pattern) else fs.unstrip_protocol(path)).rstrip("/")


def _below(url: str, root: str) -> tuple[str, str]:
    """Prefix and name of the group of a file below the only path: its first component there."""
    if not url.startswith(root + "/"):
        return url, posixpath.basename(url)
    name, slash, _ = url[len(root) + 1 :].partition("/")
    return f"{root}/{name}{slash}", name


def _given(url: str, roots: dict[str, str]) -> tuple[str, str]:
    """Prefix and name of the group of a file below one of several paths: the longest that it lies below."""
    held = [root for root in roots if url == root or url.startswith(root + "/")]
    if not held:
        return url, posixpath.basename(url)
    root = max(held, key=len)
    return (root if url == root else f"{root}/"), roots[root]
