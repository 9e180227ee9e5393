import pytest

from logitcask.schemas.inspection.deep.summary import describe_rows


def test_sums_do_not_depend_on_the_size_of_batches(seen, monkeypatch):
    whole = describe_rows(seen)
    monkeypatch.setattr("logitcask.schemas.inspection.deep.row_sums._BATCH_ROWS", 1)
    by_block = describe_rows(seen)
    assert len(by_block["calibration"]) == len(whole["calibration"])
    for one, other in zip(by_block["calibration"], whole["calibration"], strict=True):
        assert one == pytest.approx(other)
    assert by_block["hardest_ids"] == whole["hardest_ids"]
    assert by_block["mass_of_top_k_stored"] == pytest.approx(whole["mass_of_top_k_stored"])
