from logitcask.schemas.terminal.progress import row_progress, shard_progress


def test_without_a_terminal_progress_prints_nothing(capfd):
    with row_progress(10) as advance:
        advance(10)
    entries = ["a", "b"]
    assert list(shard_progress(entries, "verify", len(entries))) == entries  # pyright: ignore[reportArgumentType]
    assert capfd.readouterr() == ("", "")
