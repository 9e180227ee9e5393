"""Reading a corpus: files of several formats → documents, or the reason why something is none.

A document that cannot be read is never lost and never fatal: it comes out as a `Rejected` with its place and its
raw bytes. What is fatal is a corpus that is not there or that changes while it is being read.
"""
