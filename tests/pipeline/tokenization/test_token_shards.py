"""Token shards of a unit: at most the configured number of positions."""

from pathlib import Path

from tokenizing import make_spec, make_unit

from logitcask.pipeline.tokenization.tokenize_unit import tokenize_unit
from logitcask.pipeline.units.heartbeats import Heartbeats


def test_shards_hold_at_most_the_configured_positions(tmp_path: Path, sentencepiece_model: Path, corpus: Path) -> None:
    (corpus / "long.txt").write_text((corpus / "a.jsonl").read_text()[:30_000])
    unit = tokenize_unit(make_unit(corpus), make_spec(tmp_path / "out", sentencepiece_model), Heartbeats())
    train = [shard.num_positions for shard in unit.shards if shard.split == "train"]
    assert max(train) <= 512
    assert min(train[:-1]) > 512 - 64
