import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ("s3://KEY:se/c+ret=@bucket/key", "s3://bucket/key"),
        ("s3://KEY:12/34@bucket/key", "s3://bucket/key"),
        ("https://user:hu sh@host/x", "https://host/x"),
        ("https://user:h@u/sh@host/x", "https://host/x"),
        ("https://user:h?u#sh::x@host/x?q=1", "https://host/x"),
        ("https://user:8080@host/x", "https://host/x"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("http://[::1]:8080/a@b", "http://[::1]:8080/a@b"),
        ("https://host/a;token=hush;v=1/b", "https://host/a;v=1/b"),
        ("s3://bucket/a;b=c", "s3://bucket/a;b=c"),
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
        ("Authorization: Bearer hush", "Authorization: ***"),
        ("{'Authorization': 'Basic hush', 'x': 1}", "{'Authorization': '***', 'x': 1}"),
        ("AWS_SECRET_ACCESS_KEY=hush/a+b", "AWS_SECRET_ACCESS_KEY=***"),
        ("HF_TOKEN=hush WANDB_TOKEN: hush", "HF_TOKEN=*** WANDB_TOKEN: ***"),
        ("aws_secret_access_key = 'hu sh'", "aws_secret_access_key = '***'"),
        ('{"password": "hu sh", "token": "hush"}', '{"password": "***", "token": "***"}'),
        ("url: /x?a=1&X-Amz-Signature=hush&sig=hush", "url: /x?a=1&X-Amz-Signature=***&sig=***"),
        ("AccountName=x;AccountKey=hush==", "AccountName=x;AccountKey=***"),
        ("no option --hf-token hush", "no option --hf-token ***"),
        ("used hf_abcdefghijklmnopqrstuvwx here", "used *** here"),
        ("no file 's3:/KEY:se/cret@bucket/x'", "no file 's3:/bucket/x'"),
        ("cannot open s3://KEY:hu sh@bucket/x", "cannot open s3://bucket/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhush\n-----END", "-----BEGIN RSA PRIVATE KEY-----***-----END"),
    ],
)
def test_credentials_in_any_words_are_hidden(text: str, shown: str) -> None:
    assert scrub(text) == shown
    assert scrub(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/key: no such file; ask admin@example.org",
        "https://host:8080 refused; ask admin@example.org",
        "bos_token='<bos>', batch_tokens=4096, tokens: 5, unexpected token: x",
        "/local/user:name@host: Permission denied",
    ],
)
def test_messages_without_credentials_do_not_change(text: str) -> None:
    assert scrub(text) == text


_SECRETS = st.text(string.ascii_letters + string.digits + "/@ +=?#&;:%~!$", min_size=8, max_size=40).filter(
    lambda secret: not secret[0].isspace() and not secret[-1].isspace() and not secret[0].isdigit()
)


@given(secret=_SECRETS, scheme=st.sampled_from(["s3", "https", "gs", "ftp", "hdfs"]))
def test_no_password_survives_redaction(secret: str, scheme: str) -> None:
    assert redact(f"{scheme}://user:{secret}@host/x") == f"{scheme}://host/x"


@settings(max_examples=60)
@given(
    secret=st.text(string.ascii_letters + string.digits + "/+=~.-", min_size=8, max_size=40).map("hush".__add__),
    form=st.sampled_from(
        [
            "GET https://user:{}@host/x failed",
            "s3:/KEY:{}@bucket",
            "(zip://a.txt::https://u:{}@h/x.zip)",
            "x?sig={}&y=1",
            "AWS_SESSION_TOKEN={}",
            "'api_key': '{}'",
            "Proxy-Authorization: Basic {}",
            "https://host/x;token={}",
            "secret: {}",
        ]
    ),
    before=st.text(max_size=12),
    after=st.text(max_size=12),
)
def test_no_secret_survives_in_a_message(secret: str, form: str, before: str, after: str) -> None:
    assert "hush" not in scrub(f"{before} {form.format(secret)} {after}")


_URL_PIECES = ("x", "a://", "a://x:'", "a://x:y ", "aa:/x:y ", "a:", "://", "@", "?", "::a", "a.b-", ";a=")
_WORD_PIECES = (
    " ",
    "'",
    'a="',
    "--a ",
    "eyJ-",
    "sk-",
    "bearer ",
    "password:",
    "token=",
    "authorization:",
    "-----BEGIN ",
)


@pytest.mark.parametrize("piece", [*_URL_PIECES, *_WORD_PIECES, "\x1b", "\u202e"])
def test_the_time_is_linear_in_the_length_of_the_text(piece: str) -> None:
    text = piece * (40_000 // len(piece))
    start = time.process_time()
    for function in (scrub, redact, printable, printable_line):
        function(text)
        function(f"s3://{text}")
        function(f"https://u:{text}")
    # A quadratic expression takes minutes.
    assert time.process_time() - start < 5


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
