import pytest

from logitcask.schemas.errors import UsageError
from logitcask.schemas.inspection.numbering import find_window, numbered_shards


def test_windows_are_numbered_over_the_shards_of_all_splits(seen):
    held_out, train = numbered_shards(seen)
    assert (held_out.first_window, held_out.entry.split) == (0, "held-out")
    assert (train.first_window, train.entry.split) == (held_out.entry.num_windows, "train")
    assert list(numbered_shards(seen, "train")) == [train]


def test_a_window_has_a_number_and_a_place_in_its_shard(seen):
    shard, index = find_window(seen, "6")
    assert (shard.entry.name, index) == ("shard-0", 1)
    assert find_window(seen, "shard-0:1") == (shard, index)


@pytest.mark.parametrize("window", ["10", "-1", "x", "shard-0:5", "missing:0"])
def test_a_missing_window_is_a_usage_error(seen, window):
    with pytest.raises(UsageError, match="window"):
        find_window(seen, window)
