"""What is summed over the rows of shards. Every statistic is mergeable: sums of parts are the sum of the whole."""
