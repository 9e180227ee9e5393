"""`logitcask inspect`: a dataset's summary, its distributions, single windows, and two datasets compared.

`X.py` gathers a JSON value; `X_view.py` prints it.
"""
