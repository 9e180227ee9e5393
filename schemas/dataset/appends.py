"""Which corpora have been, or are being, appended to a dataset.

`OUT/appends/<corpus fingerprint>.json` claims an append before its first unit. The append is finished when the
identity of a snapshot lists the corpus.
"""

from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.identity import Identity
from logitcask.schemas.dataset.snapshot import Snapshot
from logitcask.schemas.seals import SEAL_KEY, create_sealed, read_sealed

# Since 2, claims have a seal (`schemas.seals`), and say their version.
CLAIM_VERSION_KEY, CLAIM_VERSION = "claim_version", 2


def claim_append(out: str, identity: Identity) -> None:
    """Records that the corpus of an identity is being appended; does nothing if that is recorded already."""
    assert identity.corpus is not None, "an append has a corpus"
    claim = {CLAIM_VERSION_KEY: CLAIM_VERSION, **identity.to_json()}
    create_sealed(_url(out, identity.corpus.fingerprint), claim)


def read_append(out: str, corpus_fingerprint: str) -> Identity:
    """The identity of an append that was begun.

    Raises:
        CorruptShardError: The file is damaged.
    """
    return read_sealed(
        _url(out, corpus_fingerprint),
        _parse_claim,
        version_key=CLAIM_VERSION_KEY,
        what="the claim of an append",
        advice="restore it; or, if the append is finished, remove it",
    )


def _parse_claim(value: dict[str, Any]) -> Identity:
    return Identity.from_json({key: one for key, one in value.items() if key not in (CLAIM_VERSION_KEY, SEAL_KEY)})


def unfinished_appends(snapshot: Snapshot) -> list[str]:
    """Fingerprints of the corpora whose append was begun but which the snapshot does not hold."""
    files = storage.list_members(snapshot.url, "appends")
    begun = {storage.file_name(file.url).removesuffix(".json") for file in files}
    return sorted(begun - {corpus.fingerprint for corpus in snapshot.identity.corpora})


def _url(out: str, corpus_fingerprint: str) -> str:
    return storage.inside(out, "appends", f"{corpus_fingerprint}.json")
