"""What a run has to do: the first corpus of a dataset, an append that was begun, what is new, or nothing.

A plan is recorded before its first unit (`pipeline.units.corpus_plan`). A later run compares the corpus with all
recorded plans and continues the one that is not finished, so that what is known is never annotated twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from logitcask.pipeline.corpus.files import CorpusFile, named_by_common_directory, recorded_pattern
from logitcask.pipeline.corpus.parquet_metadata import MetadataReader
from logitcask.pipeline.corpus.source_groups import group_sources
from logitcask.pipeline.recorded_corpus import Comparison, RecordedCorpus, name_files, new_slices
from logitcask.pipeline.units.corpus_plan import CorpusPlan, corpus_info, read_plan, write_plan
from logitcask.pipeline.units.finished import finished_token_units
from logitcask.pipeline.units.token_units import TokenUnit, group_slices, slice_file
from logitcask.schemas import storage
from logitcask.schemas.dataset.appends import claim_append, read_append, unfinished_appends
from logitcask.schemas.dataset.identity import CorpusInfo, Identity
from logitcask.schemas.dataset.snapshot import Snapshot, latest_snapshot
from logitcask.schemas.errors import ConfigurationMismatchError, CorpusError
from logitcask.schemas.fingerprints import fingerprint
from logitcask.schemas.redaction import printable_line
from logitcask.schemas.terminal.formatting import byte_size


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusWork:
    """What a run has to do.

    Attributes:
        plan: The plan that it works on; None if there is nothing to do.
        units: The plan's token units, with the files where they are now.
        absent: Units that need files which are gone or have changed: name to names of these files.
        identity: Of the plan's corpus.
        is_append: Whether the plan adds to a finished dataset.
        comparison: How the corpus compares with what was recorded before this run.
        is_last: Whether nothing new remains after this plan.
    """

    plan: CorpusPlan | None
    units: tuple[TokenUnit, ...] = ()
    absent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    identity: Identity
    is_append: bool = False
    comparison: Comparison = field(default_factory=Comparison)
    is_last: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedPlans:
    """The plans of a dataset.

    Attributes:
        latest: Its latest snapshot.
        held: Plans of the corpora that are in the dataset, or of its first corpus; None for one of an earlier release.
        begun: Appends that were begun and are not finished, with their plans.
    """

    latest: Snapshot | None
    held: tuple[tuple[CorpusInfo, CorpusPlan | None], ...]
    begun: tuple[tuple[Identity, CorpusPlan | None], ...]

    @property
    def is_complete(self) -> bool:
        return self.latest is not None and self.latest.complete

    @property
    def plans(self) -> list[CorpusPlan]:
        """The plans of what is in the dataset."""
        return [plan for _, plan in self.held if plan is not None]

    @property
    def begun_plans(self) -> list[CorpusPlan]:
        return [plan for _, plan in self.begun if plan is not None]

    @property
    def patterns(self) -> set[str] | None:
        """The paths that the dataset was made of; None if it is complete and an earlier release made it."""
        if self.is_complete and any(plan is None for _, plan in self.held):
            return None
        return {pattern for plan in [*self.plans, *self.begun_plans] for pattern in plan.patterns}


def recorded_plans(out: str, begun: Identity) -> RecordedPlans:
    """Reads the plans of a dataset.

    Raises:
        CorruptShardError: A file is damaged.
    """
    latest = latest_snapshot(out)
    corpora = begun.corpora if latest is None else latest.identity.corpora
    claims = [read_append(out, one) for one in unfinished_appends(latest)] if latest else []
    return RecordedPlans(
        latest=latest,
        held=tuple((corpus, read_plan(out, corpus.fingerprint)) for corpus in corpora),
        begun=tuple((claim, read_plan(out, claim.corpus.fingerprint)) for claim in claims if claim.corpus is not None),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenCorpus:
    """The corpus of this run.

    Attributes:
        paths: Files, directories and globs as given.
        files: The files that they match now.
    """

    paths: tuple[str, ...]
    files: tuple[CorpusFile, ...]

    @property
    def patterns(self) -> tuple[str, ...]:
        return tuple(recorded_pattern(path) for path in self.paths)

    def plan(self, units: Sequence[TokenUnit], info: CorpusInfo | None = None) -> CorpusPlan:
        """A plan of units whose files are among these."""
        return CorpusPlan(
            info=info or corpus_info(units),
            patterns=self.patterns,
            sources=group_sources(self.paths, self.files).prefixes,
            known=(),
            units=tuple(units),
        )


def new_plan(corpus: GivenCorpus, settings_fingerprint: str) -> CorpusPlan:
    """The plan of a dataset's first corpus."""
    with MetadataReader() as metadata:
        pieces = [piece for file in corpus.files for piece in slice_file(file, metadata.row_group_bytes)]
    return corpus.plan(group_slices(pieces, settings_fingerprint))


def choose_work(
    out: str,
    corpus: GivenCorpus,
    identity: Identity,
    recorded: RecordedPlans,
    *,
    appends: bool,
    allow_duplicates: bool,
) -> CorpusWork:
    """What to do for a corpus in a dataset that was begun; records the plan of what is appended.

    Args:
        out: The dataset's directory.
        corpus: The corpus as it is now.
        identity: The settings of this run; its corpus is that of the dataset's first run.
        recorded: The dataset's plans.
        appends: Whether to annotate what is new.
        allow_duplicates: Whether to annotate documents that the dataset has.

    Raises:
        CorpusError: What was begun needs files that are gone or have changed.
        ConfigurationMismatchError: An earlier release began the dataset, and the corpus has changed since.
    """
    if not recorded.is_complete:
        return _continue_first(out, corpus, identity, recorded, revises=appends)
    assert recorded.latest is not None, "a complete snapshot"
    if _old_fingerprint(corpus.files) in {info.fingerprint for info, plan in recorded.held if plan is None}:
        return _first_again(out, corpus, identity, recorded)
    comparison = RecordedCorpus(out, recorded.plans).compare(corpus.files, corpus.patterns)
    if not appends:
        plan = recorded.held[0][1] if recorded.latest.made_by == "annotate" and recorded.held else None
        units, absent = _located(out, plan, comparison) if plan else ((), {})
        return CorpusWork(
            plan=plan,
            units=units,
            absent=absent,
            identity=identity,
            comparison=comparison,
            is_last=not comparison.new,
        )
    for claim, plan in recorded.begun:
        work = _continue_append(out, corpus, claim, plan, recorded)
        if work is not None:
            return work
    if not comparison.new:
        return CorpusWork(plan=None, identity=identity, comparison=comparison)
    known = () if allow_duplicates else tuple(info.fingerprint for info, _ in recorded.held)
    names = [identity.token_fingerprint(), *([known] if known else [])]
    plan = replace(corpus.plan(group_slices(new_slices(comparison), fingerprint(names))), known=known)
    write_plan(out, plan)
    identity = replace(identity, corpus=plan.info)
    claim_append(out, identity)
    return CorpusWork(plan=plan, units=plan.units, identity=identity, is_append=True, comparison=comparison)


def require_everything(out: str, work: CorpusWork) -> None:
    """Raises CorpusError if the corpus has something that the dataset lacks after this run."""
    new = work.comparison.new
    if not new or work.is_last:
        return
    differences = "; ".join(one for one in work.comparison.describe() if " removed: " not in one)
    raise CorpusError(
        f"{storage.redact(out)} lacks {byte_size(work.comparison.new_bytes)} in {len(new):,} file(s) of this corpus "
        f"({differences}). To annotate them, add --append to the same command"
    )


def require_files(work: CorpusWork) -> None:
    """Raises CorpusError if units could not be done because files are absent."""
    if work.absent:
        names = sorted({name for names in work.absent.values() for name in names})
        raise CorpusError(
            f"{len(work.absent):,} unit(s) were begun with {len(names):,} file(s) that are now missing or changed: "
            f"{name_files(names)}. Restore them and run the same command again, or leave them out with --append; all "
            "other units are finished"
        )


def _continue_first(
    out: str, corpus: GivenCorpus, identity: Identity, recorded: RecordedPlans, *, revises: bool
) -> CorpusWork:
    """The first corpus, which is not finished."""
    plan = recorded.held[0][1] if recorded.held else None
    if plan is None:
        return _first_again(out, corpus, identity, recorded)
    work = _continue(out, corpus, identity, plan)
    return _revise(out, corpus, identity, plan) if work.absent and revises else work


def _continue(
    out: str, corpus: GivenCorpus, identity: Identity, plan: CorpusPlan, before: Sequence[CorpusPlan] | None = None
) -> CorpusWork:
    """A plan that is not finished; `before` are those that it is appended to."""
    comparison = RecordedCorpus(out, [*(before or ()), plan]).compare(corpus.files, corpus.patterns)
    units, absent = _located(out, plan, comparison)
    return CorpusWork(
        plan=plan,
        units=units,
        absent=absent,
        identity=identity,
        is_append=before is not None,
        comparison=comparison,
        is_last=not comparison.new,
    )


def _revise(
    out: str, corpus: GivenCorpus, identity: Identity, plan: CorpusPlan, before: Sequence[CorpusPlan] | None = None
) -> CorpusWork:
    """Replaces a plan whose files are gone by one of its finished units and of what the corpus has now."""
    kept = replace(plan, units=tuple(_whole_units(out, plan)))
    comparison = RecordedCorpus(out, [*(before or ()), kept]).compare(corpus.files, corpus.patterns)
    names = [identity.token_fingerprint(), plan.known, plan.revision + 1]
    units = (*kept.units, *group_slices(new_slices(comparison), fingerprint(names)))
    now = corpus.plan(units)
    revised = replace(
        plan,
        info=replace(now.info, fingerprint=plan.info.fingerprint),
        patterns=tuple(dict.fromkeys([*plan.patterns, *now.patterns])),
        sources={**plan.sources, **now.sources},
        units=units,
        revision=plan.revision + 1,
    )
    if not write_plan(out, revised):
        revised = read_plan(out, plan.info.fingerprint)
        assert revised is not None, "another process has revised the plan"
    return _continue(out, corpus, identity, revised, before)


def _first_again(out: str, corpus: GivenCorpus, identity: Identity, recorded: RecordedPlans) -> CorpusWork:
    """A corpus without a plan: an earlier release began it, or this one was killed before it wrote the plan."""
    plans = [_old_plan(corpus, identity), new_plan(corpus, identity.token_fingerprint())]
    for info, _ in recorded.held:
        for plan in plans:
            if plan.info.fingerprint != info.fingerprint:
                continue
            if recorded.is_complete and (recorded.latest is None or recorded.latest.made_by != "annotate"):
                return CorpusWork(plan=None, identity=identity)
            write_plan(out, plan)
            return CorpusWork(plan=plan, units=plan.units, identity=identity)
    was = recorded.held[0][0] if recorded.held else CorpusInfo(num_files=0, size_bytes=0, fingerprint="")
    raise ConfigurationMismatchError(
        f"{storage.redact(out)} was begun by an earlier release, which did not record its files: {was.num_files:,} "
        f"file(s) with {was.size_bytes:,} bytes. The corpus has changed since: now {len(corpus.files):,} file(s) with "
        f"{sum(file.size_bytes for file in corpus.files):,} bytes. Restore it, or choose another --out"
    )


def _old_plan(corpus: GivenCorpus, identity: Identity) -> CorpusPlan:
    """The plan that earlier releases made: other names of files and units, which depend on time and place."""
    files = named_by_common_directory(corpus.files)
    with MetadataReader() as metadata:
        pieces = [piece for file in files for piece in slice_file(file, metadata.row_group_bytes)]
    units = group_slices(pieces, identity.token_fingerprint(), file_identity=_old_identity)
    return corpus.plan(units, replace(corpus_info(units), fingerprint=_old_fingerprint(corpus.files)))


def _old_fingerprint(files: Sequence[CorpusFile]) -> str:
    return fingerprint([_old_identity(file) for file in named_by_common_directory(files)])


def _old_identity(file: CorpusFile) -> list[str | int]:
    return [file.redacted_url, file.name, file.size_bytes, file.etag]


def _continue_append(
    out: str, corpus: GivenCorpus, claim: Identity, plan: CorpusPlan | None, recorded: RecordedPlans
) -> CorpusWork | None:
    """An append that was begun; None if it is that of another corpus."""
    if plan is None:
        plan = _old_plan(corpus, claim)
        if claim.corpus is None or plan.info.fingerprint != claim.corpus.fingerprint:
            return None
        write_plan(out, plan)
    work = _continue(out, corpus, claim, plan, recorded.plans)
    if not work.absent:
        return work
    is_same = not set(corpus.patterns).isdisjoint(plan.patterns)
    return _revise(out, corpus, claim, plan, recorded.plans) if is_same else None


def _whole_units(out: str, plan: CorpusPlan) -> list[TokenUnit]:
    """The finished units of a plan, without those that read only a part of a file and lack the rest of it."""
    finished = finished_token_units(out, plan.units)
    kept = [unit for unit in plan.units if unit.name in finished]
    while True:
        left = {unit.name for unit in kept}
        torn = {piece.file.name for name, piece in plan.each_slice() if name not in left}
        whole = [unit for unit in kept if torn.isdisjoint(piece.file.name for piece in unit.slices)]
        if len(whole) == len(kept):
            return whole
        kept = whole


def _located(
    out: str, plan: CorpusPlan, comparison: Comparison
) -> tuple[tuple[TokenUnit, ...], dict[str, tuple[str, ...]]]:
    """The units of a plan with the files where they are now, and those that lack files and are not finished."""
    units, absent = [], {}
    for unit in plan.units:
        slices, missing = [], []
        for piece in unit.slices:
            file = comparison.present.get((piece.file.name, piece.file.size_bytes, piece.file.digest))
            if file is None:
                missing.append(piece.file.name)
            slices.append(piece if file is None else replace(piece, file=file))
        units.append(replace(unit, slices=tuple(slices)))
        if missing:
            absent[unit.name] = tuple(printable_line(name) for name in missing)
    lacking = [unit for unit in units if unit.name in absent]
    finished = finished_token_units(out, lacking) if lacking else set()
    return tuple(units), {name: names for name, names in absent.items() if name not in finished}
