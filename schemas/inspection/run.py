"""Which of its sides `inspect` shows, as JSON or for people."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.snapshot import Snapshot, load_snapshot
from logitcask.schemas.errors import IncompleteDatasetError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the command line asked for; see `schemas.inspection.command.Inspect`."""

    out: str
    other: str | None = None
    snapshot: int | None = None
    json: bool = False
    deep: bool = False
    window: str | None = None
    rows: str | None = None
    top: int = 5
    find: str | None = None
    split: str | None = None
    limit: int = 20
    document: str | None = None


def run(settings: Settings) -> int:
    """Shows it; returns the exit status: 1 if something was found to be wrong or not there.

    Raises:
        UsageError: The settings contradict each other. And all that reading a dataset raises.
    """
    _check(settings)
    outs = (settings.out,) if settings.other is None else (settings.out, settings.other)
    snapshots = [load_snapshot(out, settings.snapshot) for out in outs]
    show = _chosen(settings)
    return show(settings, *snapshots)


def _check(settings: Settings) -> None:
    sides = {
        "--deep": settings.deep,
        "--window": settings.window is not None,
        "--find": settings.find is not None,
        "--document": settings.document is not None,
        "a second dataset": settings.other is not None,
    }
    asked = [name for name, is_asked in sides.items() if is_asked]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} do not go together; ask for one at a time")
    if settings.rows is not None and settings.window is None:
        raise UsageError("--rows is of use with --window only")
    if settings.split is not None and settings.find is None:
        raise UsageError("--split is of use with --find only: windows are numbered over all splits")
    if settings.top < 1 or settings.limit < 1:
        raise UsageError(f"--top and --limit must be positive, got {settings.top} and {settings.limit}")


def _chosen(settings: Settings) -> Callable[..., int]:
    if settings.other is not None:
        return _show_comparison
    if settings.window is not None:
        return _show_window
    if settings.find is not None:
        return _show_hits
    return _show_places if settings.document is not None else _show_summary


def _show_summary(settings: Settings, snapshot: Snapshot) -> int:
    from logitcask.schemas.inspection.summary import describe

    description = describe(snapshot)
    if settings.deep:
        from logitcask.schemas.inspection.deep.deep import look_deep
        from logitcask.schemas.terminal.progress import row_progress

        with row_progress(snapshot.total().num_positions) as progress:
            description["deep"] = look_deep(snapshot, _vocabulary_if_any(snapshot), progress=progress)
    if settings.json:
        _print_json(description)
    else:
        from logitcask.schemas.inspection.summary_view import print_summary

        print_summary(description)
        if settings.deep:
            from logitcask.schemas.inspection.deep.deep_view import print_deep

            print_deep(description["deep"])
    return 0 if all(check["holds"] for check in description.get("deep", {}).get("checks", ())) else 1


def _show_window(settings: Settings, snapshot: Snapshot) -> int:
    from logitcask.schemas.inspection.window import describe_window

    assert settings.window is not None
    rows = parse_rows(settings.rows)
    vocabulary = _vocabulary_if_any(snapshot)
    window = describe_window(snapshot, settings.window, vocabulary, num_alternatives=settings.top)
    if settings.json:
        _print_json({**window, "rows": window["rows"][rows]})
    else:
        from logitcask.schemas.inspection.window_view import print_window

        print_window(window, rows)
    return 0


def _show_hits(settings: Settings, snapshot: Snapshot) -> int:
    from logitcask.schemas.inspection.search import find_text
    from logitcask.schemas.inspection.window import dataset_vocabulary

    assert settings.find is not None
    vocabulary = dataset_vocabulary(snapshot)
    found = find_text(snapshot, settings.find, vocabulary, split=settings.split, limit=settings.limit)
    if settings.json:
        _print_json(found)
    else:
        from logitcask.schemas.inspection.search_view import print_hits

        print_hits(found)
    return 0 if found["hits"] else 1


def _show_places(settings: Settings, snapshot: Snapshot) -> int:
    from logitcask.schemas.inspection.search import locate_document

    assert settings.document is not None
    places = locate_document(snapshot, settings.document)
    if not places["parts"]:
        raise IncompleteDatasetError(
            f"{storage.redact(snapshot.url)}: snapshot {snapshot.number} has no document {settings.document!r}; it may "
            "have been rejected (see rejected/) or forgotten; --find looks for text"
        )
    if settings.json:
        _print_json(places)
    else:
        from logitcask.schemas.inspection.search_view import print_places

        print_places(places)
    return 0


def _show_comparison(settings: Settings, a: Snapshot, b: Snapshot) -> int:
    from logitcask.schemas.inspection.comparison import compare

    comparison = compare(a, b)
    if settings.json:
        _print_json(comparison)
    else:
        from logitcask.schemas.inspection.comparison_view import print_comparison

        print_comparison(comparison)
    return 0


def parse_rows(rows: str | None) -> slice:
    """`10:40`, `:40`, `10:` or `10` as a slice; None: all.

    Raises:
        UsageError: It is none of these.
    """
    if rows is None:
        return slice(None)
    start, colon, stop = rows.partition(":")
    try:
        first = int(start) if start else 0
        last = (int(stop) if stop else None) if colon else first + 1
    except ValueError as error:
        raise UsageError(f"--rows {rows}: give START:STOP, counted from 0") from error
    return slice(first, last)


def _vocabulary_if_any(snapshot: Snapshot) -> Any:
    """The dataset's vocabulary, or None where an older release left it out: ids are shown then."""
    import sys

    from logitcask.schemas.inspection.window import dataset_vocabulary

    try:
        return dataset_vocabulary(snapshot)
    except UsageError as error:
        print(f"logitcask: note: {error}", file=sys.stderr)
        return None


def _print_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))
