"""From windows of token ids to targets: scorers, hidden states, the projection, heads and tails."""
