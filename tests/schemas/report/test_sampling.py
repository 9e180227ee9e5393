from logitcask.schemas.report.sampling import RANDOM, sample_windows


def test_the_sample_depends_only_on_the_seed(snapshot):
    draw = [[one.number for one in sample_windows(snapshot, 5, seed)] for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    assert all(len(set(numbers)) == 5 and numbers == sorted(numbers) for numbers in draw)


def test_outliers_take_at_most_half_of_the_sample(snapshot):
    reasons = [one.reason for one in sample_windows(snapshot, 4)]
    assert sum(reason != RANDOM for reason in reasons) == 2


def test_outliers_are_windows_that_the_snapshot_records(snapshot):
    extremes = snapshot.total().extremes
    for one in sample_windows(snapshot, 12):
        if one.reason != RANDOM:
            assert (one.shard.entry.name, one.index) in [(e.shard, e.window) for e in extremes[one.reason][:2]]
