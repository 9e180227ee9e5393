"""Page headers: lengths and checksums as other software wrote them; anything else is a named error."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitcask.schemas.format.parquet.page_headers import Page, pages


def chunk_of(**settings) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"text": [f"value {row % 7}" for row in range(1000)]})
    pq.write_table(table, sink, **settings)
    column = pq.read_metadata(sink).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    return sink.getvalue()[start : start + column.total_compressed_size]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("has_checksum", [True, False])
def test_all_pages_are_found(version, has_checksum):
    chunk = chunk_of(data_page_version=version, write_page_checksum=has_checksum, max_rows_per_page=250)
    found = list(pages(chunk))
    assert [page.has_checksum for page in found] == [has_checksum] * 5
    assert found[0].offset == 0


def test_statistics_with_text_are_skipped():
    assert list(pages(chunk_of(use_dictionary=False))) == [Page(offset=0, has_checksum=False)]


@pytest.mark.parametrize("cut", [1, 5, 20, -1])
def test_a_chunk_that_ends_early_is_refused(cut):
    with pytest.raises(ValueError, match="page"):
        list(pages(chunk_of()[:cut]))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\x15\x00\x00", "a page of -1 bytes"),
        (b"\x15\x00\x15\x08\x15\x07\x00", "a page of -4 bytes"),
        (b"\x1c" * 100, "too many levels"),
        (b"\x19" * 100, "too many levels"),
        (b"\x15" + b"\xff" * 100, "a number of too many bytes"),
        (b"\x1d\x00", "a field of type 13"),
        (b"\x19\xf9\xff\xff\xff\xff\x0f", "does not end"),
        (b"\x18\xff\xff\xff\xff\x0f", "does not end"),
    ],
)
def test_bytes_that_are_no_header_are_refused(header, message):
    with pytest.raises(ValueError, match=message):
        list(pages(header))
