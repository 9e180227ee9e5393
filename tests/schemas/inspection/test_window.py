"""The description of a window equals the contents of its shard."""

import numpy as np
import pytest

from logitcask.schemas.format.reader import ShardReader
from logitcask.schemas.inspection.window import dataset_vocabulary, describe_window


def test_a_window_equals_the_rows_of_its_shard(seen, shards):
    window = describe_window(seen, "6", dataset_vocabulary(seen), num_alternatives=3)
    (entry,) = seen.shards("train")
    assert (window["split"], window["shard"], window["window_in_shard"]) == ("train", "shard-0", 1)
    with ShardReader(seen.shard_url(entry)) as reader:
        block = reader.read(1, 2)
    targets = block.targets
    assert targets is not None
    for index, row in enumerate(window["rows"]):
        assert row["id"] == block.windows.token[index]
        assert (row["loss_nats"] is None) == np.isnan(targets.log_next[index])
        entries = slice(targets.head_offsets[index], targets.head_offsets[index + 1])
        largest = np.sort(targets.head_log_probs[entries])[::-1][:3]
        assert [one["p"] for one in row["alternatives"]] == pytest.approx(np.exp(largest).tolist())
        if row["next"]:
            assert row["next"]["id"] == block.windows.token[index + 1]
    assert window["parts"][-1]["stop_row"] == len(window["rows"]) == 50
