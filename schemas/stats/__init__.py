"""Statistics over the rows of shards. Every statistic is mergeable: the sum of the parts equals that of the whole."""
