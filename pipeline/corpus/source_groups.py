"""The sources of a corpus, determined from its files alone before the first unit runs."""

import posixpath
from collections.abc import Sequence

from logitcask.pipeline.corpus.files import CorpusFile, fixed_url
from logitcask.schemas import storage
from logitcask.schemas.stats.by_source import MAX_GROUPS, SourceGroups


def group_sources(patterns: Sequence[str], files: Sequence[CorpusFile]) -> SourceGroups:
    """Groups a corpus's files by the given path that matched them, or by the first component below a single path.

    If there are more than `MAX_GROUPS`, the largest groups by bytes keep their names (equal ones in name order), and
    all others are counted together without a name.

    Args:
        patterns: Files, directories and globs as given.
        files: The files they match.
    """
    roots = {fixed_url(pattern): storage.redact(pattern) for pattern in patterns}
    sizes: dict[tuple[str, str], int] = {}
    for file in files:
        url = file.redacted_url
        group = _below(url, next(iter(roots))) if len(roots) == 1 else _given(url, roots)
        sizes[group] = sizes.get(group, 0) + file.size_bytes
    largest = sorted(sizes, key=lambda group: (-sizes[group], group))
    kept = largest if len(largest) <= MAX_GROUPS else largest[: MAX_GROUPS - 1]
    return SourceGroups(prefixes=dict(sorted(kept)))


def _below(url: str, root: str) -> tuple[str, str]:
    """Prefix and name of the group of a file below a single path: the first component below it."""
    if not url.startswith(root + "/"):
        return url, posixpath.basename(url)
    name, slash, _ = url[len(root) + 1 :].partition("/")
    return f"{root}/{name}{slash}", name


def _given(url: str, roots: dict[str, str]) -> tuple[str, str]:
    """Prefix and name of the group of a file below one of several paths: the longest path above it."""
    held = [root for root in roots if url == root or url.startswith(root + "/")]
    if not held:
        return url, posixpath.basename(url)
    root = max(held, key=len)
    return (root if url == root else f"{root}/"), roots[root]
