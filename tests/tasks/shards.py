"""What the tests of whole shards share; apart from `helpers`, because it imports Prefect."""

from darkroom.tasks.dataset.shard import ShardRef
from darkroom.tasks.publish import publish
from darkroom.tasks.recover import close_workspace
from darkroom.tasks.resize import work_shard
from tests.tasks.helpers import journal_rows, prepare


def shard_of(place, plan, number=0, *, run_id="run", attempt=1):
    return ShardRef(
        destination=str(place.root),
        run_id=run_id,
        number=number,
        of=len(plan.shards),
        images=plan.shards[number].images,
        attempt=attempt,
    )


def work(source, place, **options):
    """Begin a run and work through all its shards; their rows by path, and what came of each shard."""
    workspace, _, plan = prepare(source, place, **options)
    results = [work_shard(shard_of(place, plan, shard.number, run_id=workspace.run_id)) for shard in plan.shards]
    return {row["source_path"]: row for row in journal_rows(workspace)}, results


def run(source, place, **options):
    """A whole run, published."""
    workspace, job, plan = prepare(source, place, **options)
    for shard in plan.shards:
        work_shard(shard_of(place, plan, shard.number, run_id=workspace.run_id))
    publish(workspace, job, ended=True)
    close_workspace(workspace)
