"""A .txt or .md file is one document."""

from collections.abc import Iterator

from logitcask.pipeline.corpus.documents import Place, RawDocument, Rejected
from logitcask.pipeline.corpus.fields import Fields, document_from_text, too_large
from logitcask.pipeline.corpus.files import FileSlice
from logitcask.pipeline.corpus.streams import CORRUPT_STREAM_ERRORS, open_file


def read_text(piece: FileSlice, fields: Fields) -> Iterator[RawDocument | Rejected]:
    """The file's only document. A file above the limit is rejected, because there is no rule where to divide it."""
    file = piece.file
    place = Place(file_name=file.name, url=file.redacted_url, row=1, offset_bytes=0)
    with open_file(file) as stream:
        try:
            data = stream.read(fields.document_bytes + 1)
        except CORRUPT_STREAM_ERRORS as e:
            yield Rejected(place=place, reason="corrupt_stream", detail=f"{file.compression}: {e}")
            return
    if len(data) > fields.document_bytes:
        yield too_large(fields, place, f"more than {fields.document_bytes} bytes")
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        yield Rejected(place=place, reason="undecodable", detail=f"not UTF-8: {e}", raw=data)
        return
    yield document_from_text(text, fields, place, data)
