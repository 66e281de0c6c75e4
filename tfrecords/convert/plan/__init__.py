"""What one run is going to do: its options, its splits, and which example goes into which shard."""
