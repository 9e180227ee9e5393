"""An append is claimed before its first unit, and finished when a snapshot holds its corpus."""

import dataclasses

from random_shards import IDENTITY

from logitcask.schemas import storage
from logitcask.schemas.dataset.appends import claim_append, unfinished_appends
from logitcask.schemas.dataset.identity import AppendedCorpus, CorpusInfo
from logitcask.schemas.seals import read_sealed

CORPUS = CorpusInfo(num_files=1, size_bytes=2, fingerprint="more")
CLAIMED = dataclasses.replace(IDENTITY, corpus=CORPUS)


def test_a_claim_is_made_once_and_states_the_identity(small_dataset):
    assert unfinished_appends(small_dataset) == []
    for _ in range(2):
        claim_append(small_dataset.url, CLAIMED)
    assert unfinished_appends(small_dataset) == ["more"]
    claim = read_sealed(
        storage.join(small_dataset.url, "appends/more.json"), dict, version_key="claim_version", what="", advice=""
    )
    assert claim.items() >= CLAIMED.to_json().items()


def test_an_append_is_finished_when_the_snapshot_holds_the_corpus(small_dataset):
    claim_append(small_dataset.url, CLAIMED)
    appended = AppendedCorpus(**dataclasses.asdict(CORPUS), corpus_licence=None)
    extended = dataclasses.replace(small_dataset, identity=dataclasses.replace(IDENTITY, appended=(appended,)))
    assert unfinished_appends(extended) == []
