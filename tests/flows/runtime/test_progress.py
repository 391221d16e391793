"""Progress is counted once, whether a shard runs or has ended."""

from darkroom.flows.runtime.progress import Progress
from darkroom.tasks.resize import ShardResult


def test_running_and_finished_shards_add_up():
    progress = Progress[ShardResult](100)
    assert progress.describe().startswith("0 of 100 images, 0.0/s, 0 failed")
    progress.on_message({"shard": 0, "done": 10, "failed": 1})
    progress.on_message({"shard": 1, "done": 5, "failed": 0})
    assert (progress.done, progress.failed) == (15, 1)
    progress.finish(ShardResult(number=0, ok=18, failed=2))
    assert (progress.done, progress.failed, progress.events) == (25, 2, 3)
    progress.started, progress.ended = 100.0, 105.0
    assert progress.describe() == "25 of 100 images, 5.0/s, 2 failed, 0:15 left"
