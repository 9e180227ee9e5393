"""From windows of token ids to targets: the model's hidden states, the projection, heads and tails."""
