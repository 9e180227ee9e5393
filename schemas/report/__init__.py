"""A dataset as one web page: data gathered from a snapshot, and a page that shows it without a network."""
