"""The plan of a conversion: its options, its splits, and which example goes into which shard."""
