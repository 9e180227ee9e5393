"""`logitcask inspect --deep`: statistics from every row of every shard."""
