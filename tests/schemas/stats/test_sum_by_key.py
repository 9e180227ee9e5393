from logitcask.schemas.stats.sum_by_key import sum_by_key


def test_values_of_equal_keys_are_added_in_ascending_order_of_keys():
    assert list(sum_by_key([{3: 1, 1: 2}, {}, {2: 5, 1: 4}]).items()) == [(1, 6), (2, 5), (3, 1)]


def test_anything_that_can_be_added_is_summed():
    assert sum_by_key([{"a": (1,)}, {"a": (2,), "b": (3,)}]) == {"a": (1, 2), "b": (3,)}


def test_no_pieces_have_no_sums():
    assert sum_by_key([]) == {}
