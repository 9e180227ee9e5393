"""Records of token units."""

from pathlib import Path

import pytest

from logitcask.schemas.dataset.token_unit_record import read_token_unit_record, token_unit_record_path
from logitcask.schemas.errors import CorruptShardError


def test_a_damaged_unit_record_is_named(tmp_path: Path) -> None:
    url = tmp_path / token_unit_record_path("u")
    url.parent.mkdir(parents=True)
    url.write_text('{"name": "u"}')
    with pytest.raises(CorruptShardError, match=r"u\.json: not the record of a token unit"):
        read_token_unit_record(str(tmp_path), "u")
