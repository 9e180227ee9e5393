"""Datasets of careless or hostile authors: every field × every kind of bad value; pipes and links in place of files."""

import copy
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from random_shards import IDENTITY, write_annotated_dataset

from logitcask.pipeline.tokenization.token_shards import token_shard
from logitcask.schemas.dataset.layout import write_configuration
from logitcask.schemas.dataset.record import read_record
from logitcask.schemas.dataset.token_unit_record import TokenUnitRecord, token_unit_record_path
from logitcask.schemas.dataset.vocabulary import write_vocabulary
from logitcask.schemas.fingerprints import digest
from logitcask.schemas.seals import SEAL_KEY, create_sealed, sealed

Json = Any
Damage = tuple[str, Callable[[Path], None]]
"""A name, and what it does to a dataset's directory."""

MISSING = object()
ESCAPES = (
    "../../../home/thesis.txt",
    "/etc/passwd",
    "a/../../b",
    "s3://k:secret@bucket/x",
    "a::b",
    "a\\..\\b",
    "a\0b",
    "",
)
TERMINAL = "\x1b[31mred\x1b[0m\x07\u202egnp.exe\u2066"
BAD_VALUES: dict[str, Json] = {
    "missing": MISSING,
    "null": None,
    "true": True,
    "negative": -1,
    "huge": 10**30,
    "many": 10**9,
    "fraction": 1.5,
    "1e300": 1e300,
    "text": "x",
    "list": [],
    "object": {},
    "list of null": [None],
    "nested": json.loads("[" * 50 + "]" * 50),
    "long": "y" * 50_000,
    "terminal": TERMINAL,
    **{f"escape {index}": escape for index, escape in enumerate(ESCAPES)},
}
BAD_TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "truncated": lambda text: text[: len(text) // 2],
    "continued": lambda text: text + b"{}",
    "with a byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "in UTF-16": lambda text: text.decode().encode("utf-16"),
    "latin-1": lambda text: b'{"\xe9": 1}',
    "a list": lambda text: b"[" + text + b"]",
    "duplicate keys": lambda text: b"{" + text.strip()[1:-1] + b"," + text.strip()[1:-1] + b"}",
    "NaN": lambda text: text.replace(b": 0", b": NaN"),
    "Infinity": lambda text: text.replace(b": 0", b": -Infinity"),
    "1e999": lambda text: text.replace(b": 0", b": 1e999"),
    "a surrogate": lambda text: text.replace(b'": "', b'": "\\ud800', 1),
    "deep": lambda text: b"[" * 200_000,
    "many values": lambda text: b'{"a": [' + b"[]," * 3_000_000 + b"0]}",
}


def forged(value: Any) -> bytes:
    """The bytes of a value of JSON; an object that was sealed is sealed again, so that its values are looked at."""
    if isinstance(value, dict) and SEAL_KEY in value:
        return sealed({key: one for key, one in value.items() if key != SEAL_KEY})
    return json.dumps(value).encode()


def changed_values(value: Json) -> Iterator[tuple[str, Json]]:
    """A JSON value with one bad value somewhere, for every field and every kind; equal fields of equal parents once."""
    seen: set[tuple[str, ...]] = set()
    for path in _paths(value):
        # Counts by number have hundreds of keys.
        names = tuple("0" if step.isdigit() else step for step in path if isinstance(step, str))[-2:]
        if names in seen:
            continue
        seen.add(names)
        for kind, bad in BAD_VALUES.items():
            changed = copy.deepcopy(value)
            holder = changed
            for step in path[:-1]:
                holder = holder[step]
            if bad is not MISSING:
                holder[path[-1]] = bad
            elif isinstance(holder, dict):
                del holder[path[-1]]
            else:
                continue
            yield f"{'.'.join(map(str, path))} {kind}", changed


def shrunk(value: Json) -> Json:
    """A JSON value without all except the first of its counts by number, which are many and equal."""
    if isinstance(value, dict):
        children = list(value.items())
        return {
            key: shrunk(child) for key, child in (children[:1] if children and children[0][0].isdigit() else children)
        }
    return value


def _paths(value: Json, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for step, child in children:
        yield (*before, step)
        yield from _paths(child, (*before, step))


def write_dataset(out: Path) -> None:
    """A small dataset with a file of every kind; `write_annotated_dataset` makes its shards."""
    write_configuration(str(out), identity=IDENTITY, environment={})
    (out / "logitcask.json").unlink()
    write_annotated_dataset(str(out))
    assert IDENTITY.tokenizer is not None
    write_vocabulary(str(out), [b"piece\xff"] * 300, IDENTITY.tokenizer.vocabulary_fingerprint)
    tokens = token_shard(read_record(str(out / "tokens/train/a0-tokens.json")))
    unit = TokenUnitRecord(name="000000-abc", num_documents=1, rejected={"bad": 2}, shards=(tokens,))
    create_sealed(str(out / token_unit_record_path(unit.name)), unit.to_json())
    lease = {"unit": "000000-abc", "process": "elsewhere:1:2", "started_at": "2026-01-01T00:00:00+00:00"}
    create_sealed(str(out / "attempts/000000-abc~00000000.json"), lease)


def write_journal(out: Path) -> None:
    """The journal of a compaction whose files are still to be removed."""
    shards_digest = json.loads((out / "snapshots/000001.json").read_text())["shards_digest"]
    removed = {"snapshot": 1, "rewritten": [], "removed_snapshots": [], "removed_files": ["rejected/a0-0000.jsonl"]}
    create_sealed(str(out / "compaction.json"), {"shards_digest": shards_digest, "compaction": removed})


def json_files(out: Path) -> list[Path]:
    """One JSON file of each kind."""
    names = ["logitcask.json", "compaction.json", "snapshots/000001.json", "targets/train/a0.json"]
    names += ["tokens/train/a0-tokens.json", "tokens/units/000000-abc.json", "tokenizer/pieces.json"]
    names += ["attempts/000000-abc~00000000.json"]
    return [out / name for name in names]


def damages(out: Path) -> Iterator[Damage]:
    """All ways to damage a dataset. `out` has a journal; a copy of it is damaged."""
    for file in json_files(out):
        name, text = file.relative_to(out), file.read_bytes()
        for what, change in BAD_TEXTS.items():
            yield f"{name}: {what}", _writer(name, change(text))
        for what, value in changed_values(json.loads(text)):
            yield f"{name}: {what}", _writer(name, forged(value))
    yield from _list_damages(out)
    for name in [*(file.relative_to(out) for file in json_files(out)), *_other_files(out)]:
        for what, replace in NO_FILES.items():
            yield f"{name}: {what}", _replacer(name, replace)
    for folder in ("targets", "targets/train", "tokens", "snapshots", "rejected", "tokenizer", "attempts", "segments"):
        yield f"{folder}: a link that leads out", _replacer(Path(folder), _link_out)
    for folder in ("targets/extra", "tokens/extra", "rejected/extra", "extra"):
        yield f"{folder}: a link that leads out", _replacer(Path(folder), _link_out)


def _other_files(out: Path) -> list[Path]:
    found = [*out.glob("snapshots/*.parquet"), *out.glob("rejected/*"), *out.glob("t*/train/a0*.parquet")]
    return [path.relative_to(out) for path in found]


def _writer(name: Path, data: bytes) -> Callable[[Path], None]:
    return lambda out: (out / name).write_bytes(data) and None


def _replacer(name: Path, replace: Callable[[Path, Path], None]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        path = out / name
        if path.is_dir() and not path.is_symlink():
            path.rename(out.parent / f"{out.name}-{path.name}-moved")
        else:
            path.unlink(missing_ok=True)
        replace(path, out.parent / "home")

    return damage


def _link_out(path: Path, home: Path) -> None:
    path.symlink_to(home)


def _sparse(path: Path, home: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 34)


NO_FILES: dict[str, Callable[[Path, Path], None]] = {
    "a pipe": lambda path, home: os.mkfifo(path),
    "a device": lambda path, home: path.symlink_to("/dev/zero"),
    "a directory": lambda path, home: path.mkdir(),
    "a link to itself": lambda path, home: path.symlink_to(path.name),
    "a link to nothing": lambda path, home: path.symlink_to("nothing"),
    "a link that leads out": lambda path, home: path.symlink_to(home / "thesis.txt"),
    "sixteen gigabytes": _sparse,
    "noise": lambda path, home: path.write_bytes(bytes(range(256)) * 40) and None,
}


def _list_damages(out: Path) -> Iterator[Damage]:
    """Bad values in the list of shards, with the digest that its snapshot states."""
    value = json.loads((out / "snapshots/000001.json").read_text())
    table = pq.read_table(out / "snapshots" / value["shards_file"], use_threads=False)
    rows = table.to_pylist()
    for column in rows[0]:
        for kind in ("missing", "null", "negative", "huge", "many", "text", "long", "terminal", *BAD_VALUES):
            bad = BAD_VALUES[kind]
            if bad is MISSING:
                yield f"list of shards: no {column}", _lister(value, table.drop_columns([column]))
            elif (array := _array([bad, *(row[column] for row in rows[1:])])) is not None:
                changed = table.set_column(table.schema.get_field_index(column), column, array)
                yield f"list of shards: {column} {kind}", _lister(value, changed)
    yield "list of shards: one twice", _lister(value, pa.concat_tables([table.slice(0, 1), table]).slice(0, len(table)))
    yield "list of shards: none", _lister(value, table.slice(0, 0))
    yield "list of shards: millions", _lister(value, table.take([0] * 3_000_000), num_shards=3_000_000)
    text = pa.array(["x" * 300_000_000, *(row["digest"] for row in rows[1:])])
    column = table.schema.get_field_index("digest")
    yield "list of shards: 300 MB in a text", _lister(value, table.set_column(column, "digest", text))


def _array(values: list[Any]) -> pa.Array | None:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeError):
        return None


def _lister(snapshot: Json, table: pa.Table, num_shards: int | None = None) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", use_dictionary=len(table) > 10, write_statistics=False)
        data, value = sink.getvalue(), copy.deepcopy(snapshot)
        value["shards_digest"] = digest(data)
        if num_shards is not None:
            value["splits"] = {"train": value["splits"]["train"] | {"num_shards": num_shards}}
        (out / "snapshots" / value["shards_file"]).write_bytes(data)
        (out / "snapshots/000001.json").write_bytes(forged(value))

    return damage
