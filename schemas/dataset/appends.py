"""Which corpora have been, or are being, appended to a dataset.

`OUT/appends/<corpus fingerprint>.json` claims an append before its first unit. The append is finished when the
identity of a snapshot lists the corpus.
"""

from logitcask.schemas import storage
from logitcask.schemas.checked_json import read_object
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.snapshot import Snapshot


def claim_append(out: str, identity: Identity) -> None:
    """Records that the corpus of an identity is being appended; does nothing if that is recorded already."""
    assert identity.corpus is not None, "an append has a corpus"
    storage.create_json(_url(out, identity.corpus.fingerprint), identity.to_json())


def read_append(out: str, corpus_fingerprint: str) -> Identity:
    """The identity of an append that was begun.

    Raises:
        CorruptShardError: The file is damaged.
    """
    url = _url(out, corpus_fingerprint)
    return read_object(url, Identity.from_json, what="the record of an append", advice="restore or remove it")


def unfinished_appends(snapshot: Snapshot) -> list[str]:
    """Fingerprints of the corpora whose append was begun but which the snapshot does not hold."""
    files = storage.list_members(snapshot.url, "appends")
    begun = {storage.file_name(file.url).removesuffix(".json") for file in files}
    return sorted(begun - {corpus.fingerprint for corpus in snapshot.identity.corpora})


def _url(out: str, corpus_fingerprint: str) -> str:
    return storage.inside(out, "appends", f"{corpus_fingerprint}.json")
