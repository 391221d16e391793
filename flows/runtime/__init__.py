"""What a run needs around it: cluster, shards in flight, server, progress, signals."""
