"""Runs `inspect`: chooses the view, and prints it as JSON or as text."""

from collections.abc import Callable

from logitcask.schemas import storage
from logitcask.schemas.dataset.partial import readable_snapshot
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.errors import IncompleteDatasetError, UsageError
from logitcask.schemas.inspection.settings import InspectSettings
from logitcask.schemas.terminal.guard import print_json


def run(settings: InspectSettings) -> int:
    """Prints the view; returns the exit status: 1 if nothing was found or a check failed.

    Raises:
        UsageError: The options contradict each other.
        LogitcaskError: The dataset cannot be read.
    """
    _check(settings)
    outs = (settings.out,) if settings.other is None else (settings.out, settings.other)
    snapshots = [readable_snapshot(out, settings.snapshot) for out in outs]
    show = _chosen(settings)
    return show(settings, *snapshots)


def _check(settings: InspectSettings) -> None:
    views = {
        "--deep": settings.deep,
        "--window": settings.window is not None,
        "--find": settings.find is not None,
        "--document": settings.document is not None,
        "a second dataset": settings.other is not None,
    }
    chosen = [name for name, is_chosen in views.items() if is_chosen]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} exclude each other; give one of them")
    if settings.rows is not None and settings.window is None:
        raise UsageError("--rows requires --window")
    if settings.split is not None and settings.find is None:
        raise UsageError("--split requires --find; windows are numbered over all splits")
    if settings.top < 1 or settings.limit < 1:
        raise UsageError(f"--top and --limit must be positive, got {settings.top} and {settings.limit}")


def _chosen(settings: InspectSettings) -> Callable[..., int]:
    if settings.other is not None:
        return _show_comparison
    if settings.window is not None:
        return _show_window
    if settings.find is not None:
        return _show_hits
    return _show_document if settings.document is not None else _show_summary


def _show_summary(settings: InspectSettings, snapshot: Snapshot) -> int:
    from logitcask.schemas.inspection.summary import describe

    description = describe(snapshot)
    if settings.deep:
        from logitcask.schemas.inspection.deep.summary import describe_rows
        from logitcask.schemas.inspection.window import vocabulary_if_any
        from logitcask.schemas.terminal.progress import row_progress

        with row_progress(snapshot.total().num_positions) as progress:
            description["deep"] = describe_rows(snapshot, vocabulary_if_any(snapshot), progress=progress)
    if settings.json:
        print_json(description)
    else:
        from logitcask.schemas.inspection.summary_view import print_summary

        print_summary(description)
        if settings.deep:
            from logitcask.schemas.inspection.deep.summary_view import print_deep

            print_deep(description["deep"])
    return 0 if all(check["holds"] for check in description.get("deep", {}).get("checks", ())) else 1


def _show_window(settings: InspectSettings, snapshot: Snapshot) -> int:
    from logitcask.schemas.inspection.window import describe_window, vocabulary_if_any

    assert settings.window is not None
    rows = parse_rows(settings.rows)
    vocabulary = vocabulary_if_any(snapshot)
    window = describe_window(snapshot, settings.window, vocabulary, num_alternatives=settings.top)
    if settings.json:
        print_json({**window, "rows": window["rows"][rows]})
    else:
        from logitcask.schemas.inspection.window_view import print_window

        print_window(window, rows)
    return 0


def _show_hits(settings: InspectSettings, snapshot: Snapshot) -> int:
    from logitcask.schemas.inspection.search import find_text
    from logitcask.schemas.inspection.window import dataset_vocabulary

    assert settings.find is not None
    vocabulary = dataset_vocabulary(snapshot)
    found = find_text(snapshot, settings.find, vocabulary, split=settings.split, limit=settings.limit)
    if settings.json:
        print_json(found)
    else:
        from logitcask.schemas.inspection.search_view import print_hits

        print_hits(found)
    return 0 if found["hits"] else 1


def _show_document(settings: InspectSettings, snapshot: Snapshot) -> int:
    from logitcask.schemas.inspection.search import locate_document

    assert settings.document is not None
    found = locate_document(snapshot, settings.document)
    if not found["parts"]:
        raise IncompleteDatasetError(
            f"{storage.redact(snapshot.url)}: snapshot {snapshot.number} has no document {settings.document!r}. It may "
            "be rejected (see rejected/) or forgotten; --find searches the text"
        )
    if settings.json:
        print_json(found)
    else:
        from logitcask.schemas.inspection.search_view import print_document

        print_document(found)
    return 0


def _show_comparison(settings: InspectSettings, a: Snapshot, b: Snapshot) -> int:
    from logitcask.schemas.inspection.comparison import compare

    comparison = compare(a, b)
    if settings.json:
        print_json(comparison)
    else:
        from logitcask.schemas.inspection.comparison_view import print_comparison

        print_comparison(comparison)
    return 0


def parse_rows(rows: str | None) -> slice:
    """The slice that `10:40`, `:40`, `10:` or `10` stands for; all rows for None.

    Raises:
        UsageError: `rows` has none of these forms.
    """
    if rows is None:
        return slice(None)
    start, colon, stop = rows.partition(":")
    try:
        first = int(start) if start else 0
        last = (int(stop) if stop else None) if colon else first + 1
    except ValueError as error:
        raise UsageError(f"--rows {rows}: expected START:STOP, counted from 0") from error
    return slice(first, last)
