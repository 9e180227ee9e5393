import json
from dataclasses import asdict, replace

import pytest

from logitcask.schemas.checked_json import convert
from logitcask.schemas.stats.by_source import OTHER_SOURCES, SourceGroups, SourceSummary, summarize_by_source
from logitcask.schemas.stats.sum_by_key import sum_by_key
from logitcask.schemas.stats.target_statistics import Statistics

GROUPS = SourceGroups(prefixes={"/data/a/": "a", "/data/a/b.txt": "b", "corpus/": "corpus"})


@pytest.mark.parametrize(
    ("source", "group"),
    [
        ("/data/a/x.jsonl#7", "a"),
        ("/data/a/x.jsonl@4096", "a"),
        ("/data/a/b.txt#1", "b"),
        ("/data/c.txt#1", OTHER_SOURCES),
    ],
)
def test_the_longest_matching_prefix_gives_the_group(source, group):
    assert GROUPS.of_source(source) == group


def test_groups_add_up_to_the_whole(windows, targets):
    parts = tuple(replace(part, source=f"/{'abc'[index % 3]}/x#1") for index, part in enumerate(windows.parts))
    mixed = replace(windows, parts=parts)
    groups = SourceGroups(prefixes={"/a/": "a", "/b/": "b"})
    summaries = summarize_by_source(mixed, targets, groups)
    assert set(summaries) == {"a", "b", OTHER_SOURCES}
    assert Statistics.merge(one.statistics for one in summaries.values()) == Statistics.of(windows, targets)
    assert sum(one.num_positions for one in summaries.values()) == windows.num_positions
    assert sum(one.num_documents for one in summaries.values()) == windows.num_documents()


def test_summaries_add_up_in_any_order_and_survive_json(windows, targets):
    rows = windows.window_offsets[2]
    pieces = [
        summarize_by_source(windows.select(0, 2), targets.select_rows(0, rows), GROUPS),
        summarize_by_source(windows.select(2, 5), targets.select_rows(rows, windows.num_positions), SourceGroups()),
    ]
    merged = sum_by_key(pieces)
    assert merged == sum_by_key(reversed(pieces))
    assert set(merged) == {"corpus", OTHER_SOURCES}
    value = {name: asdict(one) for name, one in merged.items()}
    assert convert(json.loads(json.dumps(value)), dict[str, SourceSummary]) == merged
