"""The runtime of flow runs: cluster, shards in flight, server, progress, signals."""
