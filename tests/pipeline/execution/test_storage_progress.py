"""Progress from storage: whole finished units, listed rarely, and never a reason to fail."""

from types import SimpleNamespace

from logitcask.pipeline.execution.storage_progress import StorageProgress
from logitcask.schemas.errors import StorageError

UNITS = [SimpleNamespace(name=name, size=size) for name, size in (("a", 10), ("b", 5), ("c", 1))]


class Store:
    """A fake store: what is finished, how long a listing takes, and how many there were."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.now = self.listing_seconds = 0.0
        self.num_listings = 0
        self.error: StorageError | None = None

    def finished(self, _: object) -> set[str]:
        self.num_listings += 1
        self.now += self.listing_seconds
        if self.error is not None:
            raise self.error
        return self.names

    def progress(self) -> StorageProgress:
        return StorageProgress(UNITS, self.finished, lambda unit: unit.size, lambda: self.now)


def test_finished_units_count_by_their_size() -> None:
    store = Store()
    progress = store.progress()
    store.names = {"a", "c", "of another job"}
    assert progress.done() == 0
    store.now = 31
    assert progress.done() == 11


def test_storage_is_listed_twice_a_minute_and_less_often_if_slow() -> None:
    store = Store()
    progress = store.progress()
    for second in range(100):
        store.now = second
        progress.done()
    assert store.num_listings == 3
    store.listing_seconds = 10
    store.now = 200
    progress.done()
    store.now = 400
    progress.done()
    assert store.num_listings == 4


def test_a_failing_store_keeps_the_last_count() -> None:
    store = Store()
    progress = store.progress()
    store.names, store.now = {"b"}, 31
    assert progress.done() == 5
    store.error, store.now = StorageError("gone"), 62
    assert progress.done() == 5
