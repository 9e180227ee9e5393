"""Which corpora have been, or are being, appended to a dataset.

An append is claimed by `OUT/appends/<corpus fingerprint>.json` before its first unit, and finished when a snapshot's
identity lists that corpus.
"""

from typing import Any

from logitcask.schemas import storage
from logitcask.schemas.dataset.snapshot import Snapshot


def claim_append(out: str, identity: dict[str, Any]) -> None:
    """Notes that a corpus is being appended; again is fine."""
    storage.create_json(storage.join(out, "appends", f"{identity['corpus']['fingerprint']}.json"), identity)


def corpora(identity: dict[str, Any]) -> list[dict[str, Any]]:
    """The corpora of a dataset, in the order in which they came."""
    first = identity.get("corpus")
    return [*([first] if first else []), *identity.get("appended", [])]


def unfinished_appends(snapshot: Snapshot) -> list[str]:
    """Fingerprints of corpora whose append was begun, but which the snapshot does not hold."""
    files = storage.list_files(storage.join(snapshot.url, "appends"))
    begun = {storage.file_name(file.url).removesuffix(".json") for file in files}
    return sorted(begun - {corpus["fingerprint"] for corpus in corpora(snapshot.identity)})
