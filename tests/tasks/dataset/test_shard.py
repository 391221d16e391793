from darkroom.tasks.dataset.shard import ShardRef, shard_refs


def test_a_shard_is_labelled_for_people():
    shard = ShardRef(destination="/d", run_id="r", number=0, of=12, images=1234)
    assert shard.label == "shard 1 of 12 (1,234 images)"
    assert shard.model_copy(update={"attempt": 2}).label.endswith(" attempt 2")


def test_a_shard_leads_to_its_workspace_and_no_attempt_has_the_name_of_another(place):
    workspace = place.workspace("run", "verify")
    first, second = shard_refs(workspace, [3, 4])
    assert (first.number, first.images, second.number, second.images, second.of) == (0, 3, 1, 4, 2)
    assert second.workspace.path == workspace.path
    assert second.workspace.store == place.store
    assert first.new_attempt() != first.new_attempt()
