"""The result of a conversion: final shards, the published dataset folder, and the summary."""
