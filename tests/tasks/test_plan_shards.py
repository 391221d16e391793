"""A plan is cut into shards that cost about the same."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.tasks import plan as plan_module
from darkroom.tasks.plan import IMAGE_OVERHEAD_BYTES, MAX_SHARDS, SHARDS_PER_WORKER, shard_count
from tests.places import destination_at, disk
from tests.tasks.helpers import NOON, plan_for

sizes = st.one_of(st.none(), st.just(0), st.integers(1, 10**6), st.integers(10**7, 10**9))


@settings(max_examples=40)
@given(st.lists(sizes, min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 8))
def test_shards_partition_the_plan(tmp_path_factory, some, workers, batch_rows):
    place = destination_at(tmp_path_factory.mktemp("dest"))
    entries = {f"{number * 7919 % 1000:03d}/é{number}.jpg": (size, NOON) for number, size in enumerate(some)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "SHARD_SECONDS", (0.01, 0.3))
        # The database returns the plan in batches whose sizes are independent of shards.
        patch.setattr(plan_module, "_groups", regrouped_from(plan_module._groups, batch_rows))
        plan, rows, _ = plan_for(place, entries, workers=workers)
    file = pq.ParquetFile(disk(place.workspace("next"), "plan"))
    groups = [file.read_row_group(number).to_pylist() for number in range(file.num_row_groups)]
    paths = [each["source_path"] for group in groups for each in group]
    assert paths == sorted(entries, key=str.encode)
    assert plan.shards == tuple(map(len, groups))
    assert all(plan.shards)
    assert plan.images == len(entries) == len(rows)
    costs = [(size or 0) + IMAGE_OVERHEAD_BYTES for size in some]
    target = sum(costs) / expected_shard_count(costs, workers)
    for group in groups:
        cost = sum((each["source_size"] or 0) + IMAGE_OVERHEAD_BYTES for each in group)
        assert cost <= target + max(costs) + 1
    assert len(groups) <= expected_shard_count(costs, workers)


def expected_shard_count(costs, workers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "SHARD_SECONDS", (0.01, 0.3))
        return shard_count(sum(costs), workers)


def regrouped_from(groups, batch_rows):
    def regrouped(tables, size, target):
        batches = pa.concat_tables(tables).to_batches(max_chunksize=batch_rows)
        return groups((pa.Table.from_batches([batch]) for batch in batches), size, target)

    return regrouped


@given(st.floats(1, 1e16), st.integers(1, 5000))
def test_the_number_of_shards_is_within_its_limits(total, workers):
    count = shard_count(total, workers)
    assert 1 <= count <= MAX_SHARDS
    assert count <= workers or count % workers == 0 or count == MAX_SHARDS
    shortest, longest = (seconds * plan_module.BYTES_PER_SECOND for seconds in plan_module.SHARD_SECONDS)
    if total >= shortest * workers * SHARDS_PER_WORKER:
        assert count >= min(workers * SHARDS_PER_WORKER, MAX_SHARDS)
    if total >= shortest * workers:
        assert count >= min(workers, MAX_SHARDS)
    if count < MAX_SHARDS:
        assert total / count <= longest * 1.5
    if count > workers:
        assert total / count >= shortest / 2


@given(st.floats(1, 1e15), st.floats(1, 10), st.integers(1, 64))
def test_more_work_never_means_fewer_shards(total, factor, workers):
    assert shard_count(total, workers) <= shard_count(total * factor, workers)


def test_little_work_is_one_shard_and_much_work_is_many():
    assert shard_count(100_000, 8) == 1
    assert shard_count(1e12, 2) == 2 * -(-int(1e12 / 750e6) // 2)
    assert shard_count(1e14, 2) == MAX_SHARDS
