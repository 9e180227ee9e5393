"""Whether targets may stand side by side: what of a dataset's identity must agree, and what differs, in words.

A dataset's identity is its resolved configuration. Corpora, licences and names may differ between datasets that are
trained on together; whatever changes what a target means may not.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from logitcask.schemas.fingerprints import fingerprint


def target_fingerprint(identity: dict[str, Any]) -> str:
    """Of everything but the token shard that changes a target shard, as a dataset's identity states it."""
    keys = ("teacher", "scheme", "entropy", "temperatures", "num_ids", "layout", "algorithm_version", "format_version")
    return fingerprint({key: identity[key] for key in keys if key in identity})


# Of a dataset's identity and of a shard's metadata alike.
_DECIDES_TARGETS = (
    "teacher",
    "tokenizer",
    "scheme",
    "temperatures",
    "num_ids",
    "entropy",
    "has_entropy",
    "quantizer",
    "window_tokens",
    "algorithm_version",
    "format_version",
)


# One model can lie in two directories, and only one of them may state its terms.
_FOR_PEOPLE = ("name", "licence")


def targets_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity (or of a shard's metadata, as JSON) that decides what targets mean."""
    return without_names({key: identity[key] for key in _DECIDES_TARGETS if key in identity})


def without_names(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without what its teacher and tokenizer are called, and under which terms they are."""
    return {
        key: {name: one for name, one in value.items() if name not in _FOR_PEOPLE}
        if isinstance(value, Mapping)
        else value
        for key, value in identity.items()
    }


def joined_terms(stated: Sequence[str | None]) -> str | None:
    """Terms that all apply, as SPDX joins them; None where nobody stated any."""
    if not any(stated):
        return None
    return " AND ".join(dict.fromkeys(one or "not stated" for one in stated))


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, where: tuple[str, str] = ("in the output", "now")
) -> Iterator[str]:
    """Keys (dotted) whose values differ, with both values and where each was found, sorted."""
    for key in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from (f"{key}.{line}" for line in differences(one, other, where=where))
        elif one != other:
            yield f"{key}: {_shorten(one)} {where[0]}, {_shorten(other)} {where[1]}"


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
