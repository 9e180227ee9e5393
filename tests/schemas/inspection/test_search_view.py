from logitcask.schemas.inspection.search import find_text, locate_document
from logitcask.schemas.inspection.search_view import print_document, print_hits
from logitcask.schemas.inspection.window import dataset_vocabulary


def test_every_hit_is_one_line_and_the_last_line_counts_windows(seen, console):
    found = find_text(seen, " w4", dataset_vocabulary(seen), limit=2)
    print_hits(found, console)
    *hits, total = console.file.getvalue().splitlines()
    assert [line.split("  ")[0] for line in hits] == [f"window {hit['window']}" for hit in found["hits"]]
    assert all(" w4" in line for line in hits)
    assert total == f"2 windows of {found['windows_searched']} searched, stopped at --limit"


def test_every_part_of_a_document_is_one_line(seen, shards, console):
    (part,) = locate_document(seen, shards[0][2].parts[3].id)["parts"]
    print_document({"parts": [part]}, console)
    shown = console.file.getvalue()
    assert shown.startswith(f"window {part['window']}  rows {part['first_row']}–{part['stop_row'] - 1}  train")
    assert f"shard-0:{part['window_in_shard']}" in shown
