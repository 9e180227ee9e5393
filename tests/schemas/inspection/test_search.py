from logitcask.schemas.inspection.search import find_text, locate_document
from logitcask.schemas.inspection.window import dataset_vocabulary, describe_window


def test_text_is_found_in_every_window_that_contains_it(seen, shards):
    vocabulary = dataset_vocabulary(seen)
    texts = [
        vocabulary.text(windows.select(i, i + 1).token.tolist())
        for _, _, windows, _ in (shards[1], shards[0])
        for i in range(windows.num_windows)
    ]
    found = find_text(seen, " w42", vocabulary, limit=100)
    assert [hit["window"] for hit in found["hits"]] == [i for i, text in enumerate(texts) if " w42" in text]
    for hit in found["hits"]:
        row = describe_window(seen, str(hit["window"]), vocabulary)["rows"][hit["row"]]
        assert row["piece"].startswith(" w42")
        assert hit["before"][-20:] + " w42" + hit["after"][:20] in texts[hit["window"]]
    assert find_text(seen, " w42", vocabulary, limit=1)["stopped_at_limit"]


def test_the_parts_of_a_document_are_found(seen, shards):
    _, _, windows, _ = shards[0]
    wanted = windows.parts[3].id
    (part,) = locate_document(seen, wanted)["parts"]
    window = describe_window(seen, str(part["window"]), None)
    assert {"document": wanted, "first_row": part["first_row"], "stop_row": part["stop_row"]}.items() <= next(
        one for one in window["parts"] if one["document"] == wanted
    ).items()
