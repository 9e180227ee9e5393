"""`logitcask report`: gathers data from a snapshot, and writes one web page that needs no network."""
