"""Guards stop a run with a message that has a remedy."""

import pytest

from darkroom.flows.guards import EARLY_STOP_IMAGES, EarlyStopError, check_guards, early_stop
from darkroom.flows.runtime.progress import Progress
from darkroom.tasks.discover import Listing
from darkroom.tasks.errors import GuardError
from darkroom.tasks.plan import Plan
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.store import Skipped
from tests.tasks.helpers import make_job


def listing(images):
    found = Listing(images, 0, Skipped())
    found.skipped.counts["not_image"] += 2
    return found


@pytest.mark.parametrize(
    ("known", "message"),
    [(0, r"holds no images\. .*: 2 not image\.$"), (9, r"while the manifest has 9\. .* remove \S+ by hand\.$")],
)
def test_an_empty_source_is_never_a_deletion_of_everything(place, known, message):
    job = make_job(place, rules=Rules(max_delete_ratio=1))
    with pytest.raises(GuardError, match=message):
        check_guards(listing(0), Plan((), known=known, deleted=known, gone=known), job)


def test_an_empty_source_names_the_options_that_list_its_files(place):
    found = Listing(0, 0, Skipped(), {"txt": 1, "": 2})
    found.skipped.counts.update({"not_image": 3, "outside": 4})
    message = (
        r"3 not image \(1 \.txt, 2 without suffix\), 4 outside\. `follow_symlinks=True` .* `by_content=True` .*\.$"
    )
    with pytest.raises(GuardError, match=message):
        check_guards(found, Plan(()), make_job(place))


def test_images_that_the_rules_leave_out_count_as_gone_and_the_message_says_so(place):
    job = make_job(place, rules=Rules(max_delete_ratio=0.2))
    with pytest.raises(GuardError, match=r"5 of 10 known .* deleted\. 4 of them are left out by `include`, `exclude`"):
        check_guards(listing(5), Plan((), known=10, deleted=5, gone=5, left_out=4), job)


def test_moved_images_do_not_count_as_gone(place):
    job = make_job(place, rules=Rules(max_delete_ratio=0.2))
    check_guards(listing(10), Plan((), known=10, deleted=8, gone=2), job)
    with pytest.raises(GuardError, match=r"3 of 10 known images are no longer listed .* `max_delete_ratio=0\.3`"):
        check_guards(listing(10), Plan((), known=10, deleted=3, gone=3), job)


@pytest.mark.parametrize(
    ("done", "failed", "ratio", "stops"),
    [
        (EARLY_STOP_IMAGES + 5, EARLY_STOP_IMAGES + 5, 0.1, True),
        (EARLY_STOP_IMAGES + 4, EARLY_STOP_IMAGES + 4, 0.1, False),
        (EARLY_STOP_IMAGES + 5, EARLY_STOP_IMAGES + 4, 0.1, False),
        (EARLY_STOP_IMAGES + 5, EARLY_STOP_IMAGES + 5, 1, False),
    ],
)
def test_a_run_stops_early_once_enough_images_failed_and_none_succeeded(done, failed, ratio, stops):
    progress = Progress(1000)
    progress.on_message({"shard": 0, "done": done, "failed": failed})
    check = early_stop(progress, Rules(max_failure_ratio=ratio), retried=5)
    if stops:
        with pytest.raises(EarlyStopError, match=f"the first {done} of 1,000 images all failed"):
            check()
    else:
        check()
