"""Reading a corpus: files of several formats → documents, or rejections with a reason.

A document that cannot be read is neither lost nor fatal: it becomes a `Rejected` with its place and its raw bytes. A
corpus that is missing, or that changes while it is read, is fatal.
"""
