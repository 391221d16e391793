"""The flow for sources that are too large for one run: a run of a deployment for each folder of the source."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import httpx
from prefect import flow, get_run_logger
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, State

from darkroom.flows.runtime.outcome import run_name
from darkroom.tasks.dataset.layout import IMAGES
from darkroom.tasks.errors import GuardError, SettingsError
from darkroom.tasks.selection import Selection
from darkroom.tasks.settings import Rules
from darkroom.tasks.storage.locations import absolute, check_source, is_list, open_store
from darkroom.tasks.wording import counted

SHOWN = 5


@flow(name="partitions", flow_run_name=partial(run_name, "partitions of "))
def preprocess_partitions(
    source: str,
    destination: str,
    deployment: str = "preprocess/nightly",
    at_once: int = 4,
    parameters: dict[str, Any] | None = None,
) -> State[None]:
    """Run a deployment once for each folder that is directly in a source, and wait for all of the runs.

    The folder `a` of the source becomes the dataset `a` in the destination, with a manifest of its own.

    Args:
        source: Folder or bucket whose folders are the partitions.
        destination: Folder or bucket in which each partition has a destination.
        deployment: The deployment to run, `flow/deployment`.
        at_once: How many runs may be under way at a time.
        parameters: Further parameters of the runs, such as recipe and rules.

    Raises:
        SettingsError: the source can't be listed, or has images beside its folders, which would be in no partition; or
            there is no such deployment.
        GuardError: the source has no folders.
    """
    source, destination = absolute(source, "source"), absolute(destination, "destination")
    names = find_partitions(source)
    get_run_logger().info(f"{counted(len(names), 'partition')} in {source}")
    with ThreadPoolExecutor(max(1, at_once), "partition") as pool:
        runs = [
            pool.submit(copy_context().run, _run, deployment, name, source, destination, parameters or {})
            for name in names
        ]
        states = dict(zip(names, (run.result() for run in runs), strict=True))
    failed = [f"{name} ({state})" for name, state in states.items() if state != "Completed"]
    found = {name[:-1] for name in open_store(destination, outputs=IMAGES).children("") if name.endswith("/")}
    abandoned = sorted(found - set(names))
    if abandoned:
        get_run_logger().warning(f"No longer in the source, left as they are: {_shown(abandoned)}")
    summary = f"{counted(len(names), 'partition')}, {len(failed):,} failed"
    return Failed(message=f"{summary}: {_shown(failed)}") if failed else Completed(message=summary)


def find_partitions(source: str) -> list[str]:
    """Return the names of the folders directly in a source, sorted.

    Raises:
        SettingsError: the source can't be listed, or has images beside its folders, which would be in no partition.
        GuardError: it has no folders.
    """
    check_source(source)
    if is_list(source):
        raise SettingsError(
            f"source: {source} is a list of images, which has no partitions. Give a folder or a bucket."
        )
    store = open_store(source, outputs=IMAGES)
    selection = Selection(Rules())
    names = [name for name in store.children("") if not selection.why_skipped(name)]
    if loose := next((name for name in names if not name.endswith("/")), None):
        raise SettingsError(
            f"source: {store.where(loose)} lies beside the folders, and would be in no partition. Move it into one."
        )
    if not names:
        raise GuardError(f"The source holds no folders of images. Is {source} mounted, and the right folder?")
    return sorted(name.removesuffix("/") for name in names)


def _run(deployment: str, name: str, source: str, destination: str, parameters: dict[str, Any]) -> str:
    """Run a partition, and return the name of its run's final state."""
    start: Callable[..., Any] = run_deployment
    values = {**parameters, "source": f"{source}/{name}", "destination": f"{destination}/{name}"}
    try:
        run = start(deployment, parameters=values, timeout=None)
    except ObjectNotFound as error:
        message = f"deployment: there is no deployment {deployment!r} on this Prefect server. Deploy it first."
        raise SettingsError(message) from error
    except httpx.HTTPError as error:
        return f"unknown: {error}"
    return run.state.name if run.state else "Unknown"


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
