from logitcask.schemas.inspection.deep.summary import describe_rows
from logitcask.schemas.inspection.deep.summary_view import print_deep
from logitcask.schemas.inspection.window import dataset_vocabulary


def test_statistics_of_every_row_are_shown(seen, console):
    deep = describe_rows(seen, dataset_vocabulary(seen))
    print_deep(deep, console)
    shown = console.file.getvalue()
    for expected in (f"{deep['rows']:,} in", "mass stored ≥", "correlation", "p→hit rate", "mean entropy ✓"):
        assert expected in shown
    assert f"w{deep['hardest_ids'][0]['id']}" in shown


def test_a_failed_check_shows_both_values(seen, console):
    check = {"what": "labels", "shards": 1234, "snapshot": 5, "tolerance": 0, "holds": False}
    print_deep({**describe_rows(seen), "checks": [check]}, console)
    assert "labels 1,234 in the shards, 5 in the snapshot ✗" in console.file.getvalue()
