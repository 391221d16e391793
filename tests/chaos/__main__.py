"""Kill processes of runs at random moments, and compare the result of the next run with that of an undisturbed one."""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from darkroom.flows.runtime.local_server import LocalServer
from darkroom.tasks.dataset.journal import FLUSH_SECONDS
from tests.chaos.chaos import Chaos, Outcome, chaos
from tests.chaos.victims import VICTIMS
from tests.harness import CHECKOUT, Api, clean_environment
from tests.weed_server import weed_server


def main() -> None:
    """Run trials of every victim, and print their outcomes."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--images", type=int, default=3_000, help="number of images in the source (default: 3,000)")
    parser.add_argument("--slow", type=int, default=240, help="number of those that are slow to decode (default: 240)")
    parser.add_argument("--trials", type=int, default=10, help="trials of each victim (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default: 0)")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS, help="what to kill (default: all)")
    parser.add_argument("--bucket", action="store_true", help="run in a bucket of a local S3 server")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=CHECKOUT / "data") as name, ExitStack() as stack:
        folder = Path(name)
        bucket = stack.enter_context(weed_server(folder)) if options.bucket else None
        os.environ.update(clean_environment(folder) | (bucket.environment if bucket else {}))
        server = LocalServer()
        server.wait_until_healthy()
        try:
            api = Api(server.api_url, folder)
            with chaos(folder, options.images, options.slow, options.seed, api, bucket) as trials:
                wrong = _print_trials(trials, options.victims, options.trials)
        finally:
            server.stop()
    raise SystemExit(1 if wrong else 0)


def _print_trials(trials: Chaos, victims: list[str], count: int) -> int:
    pace = trials.pace
    print(
        f"{len(trials.expected.rows):,} images; undisturbed: {pace.start:.1f} s until work begins, {pace.work:.1f} s "
        f"of work, {pace.end:.1f} s until the end; a part of the journal every {FLUSH_SECONDS:g} s"
    )
    print(
        f"{'victim':10}{'killed':>7}{'phase':>9}{'after':>8}{'journalled':>12}{'exit':>6}{'ended in':>10}"
        f"{'repeated':>10}{'oldest':>8}  after the rerun",
        flush=True,
    )
    wrong = 0
    for _ in range(count):
        for victim in victims:
            outcome = trials.trial(victim)
            wrong += bool(outcome.problems)
            print(_line(outcome), flush=True)
    print(f"{count * len(victims)} trials, {wrong} of them with problems")
    return wrong


def _line(outcome: Outcome) -> str:
    run = outcome.run
    code = "–" if run.code is None else run.code
    return (
        f"{outcome.victim:10}{run.killed:7}{run.moment.phase:>9}{run.after:7.1f}s{len(run.journalled):12,}{code:>6}"
        f"{run.seconds:9.1f}s{outcome.repeated:10,}{outcome.oldest:7.1f}s  "
        f"{'; '.join(outcome.problems) or 'as undisturbed'}"
    )


if __name__ == "__main__":
    main()
