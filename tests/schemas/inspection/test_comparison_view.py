from logitcask.schemas import cli
from logitcask.schemas.inspection.comparison import compare
from logitcask.schemas.inspection.comparison_view import print_comparison


def test_without_common_windows_only_the_distributions_are_shown(tmp_path, write_dataset, shards, capsys):
    first, second = (write_dataset(str(tmp_path / name), [shard]) for name, shard in zip("ab", shards, strict=True))
    assert compare(first, second)["agreement"] is None
    assert cli.main(["inspect", first.url, second.url]) == 0
    shown = capsys.readouterr().out
    assert "No window is in both" in shown
    assert shown.count("test/teacher") == 2


def test_the_agreement_on_common_windows_is_shown(seen, console):
    print_comparison(compare(seen, seen), console)
    for expected in ("10 windows are in both (of 10 and 10)", "100.00 % of rows with a head", "(0 infinite)"):
        assert expected in console.file.getvalue()
