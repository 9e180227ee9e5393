import pytest

from logitcask.schemas.redaction import has_credentials, printable, printable_line, redact, scrub


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/key", "s3://bucket/key"),
        ("s3://bucket/part-?.txt", "s3://bucket/part-?.txt"),
        ("s3://bucket/what?.txt", "s3://bucket/what?.txt"),
        ("s3://key:hush@bucket/a.txt?token=hush", "s3://bucket/a.txt"),
        ("https://user:hush@host/path?X-Amz-Signature=hush", "https://host/path"),
        ("https://host:8080/path#token=hush", "https://host:8080/path"),
        ("https://hush@host/a@b", "https://host/a@b"),
        ("ftp://user:hu@sh@host/x", "ftp://host/x"),
        ("simplecache::https://user:hush@host/x.zip?sig=hush", "simplecache::https://host/x.zip"),
        ("zip://a.txt::https://user:hush@host/x.zip?sig=hush", "zip://a.txt::https://host/x.zip"),
        ("/local/file#1?x", "/local/file#1?x"),
        ("/local/user:name@host", "/local/user:name@host"),
    ],
)
def test_credentials_in_urls_are_hidden(url: str, shown: str) -> None:
    assert redact(url) == shown
    assert has_credentials(url) == (shown != url)
    assert redact(shown) == shown


def test_credentials_in_messages_of_libraries_are_hidden() -> None:
    message = "GET <https://user:hush@host/x?sig=hush> failed, url='ftp://u:hush@h/y' (see s3://bucket/z)"
    assert scrub(message) == "GET <https://host/x> failed, url='ftp://h/y' (see s3://bucket/z)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nä 漢", "plain\ttext\nä 漢"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\rb\x9bc\u202ed", "a\\rb\\x9bc\\u202ed"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_on_one_line_newlines_and_tabs_are_visible_marks():
    assert printable_line("a\nb\tc\r\x1bö") == "a⏎b⇥c\\r\\x1bö"
