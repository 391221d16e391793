"""Check settings, and the locations that they name, before any work starts."""

from __future__ import annotations

import importlib
import inspect
import signal
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from darkroom.tasks.dataset.layout import FINDINGS, IMAGES, MANIFEST, RUNS, WORK, Destination, open_destination
from darkroom.tasks.errors import DarkroomError, InvalidSettingError, SettingsError
from darkroom.tasks.settings import Compute, Job, Recipe, Rules, Settings
from darkroom.tasks.storage.bucket_checks import is_url
from darkroom.tasks.storage.locations import (
    absolute,
    check_apart,
    check_destination,
    check_links,
    check_source,
    is_list,
)
from darkroom.tasks.storage.store import Store, exists
from darkroom.tasks.storage.store_errors import Obstructed, StorageError, reading
from darkroom.tasks.wording import counted, did_you_mean

S = TypeVar("S", bound=Settings)


def check_locations(source: str, destination: str, rules: Rules | None = None) -> tuple[str, Destination]:
    """Return the absolute location of the source, and the destination.

    Raises:
        SettingsError: the source can't be read, or not by these rules (not checked if None); the destination can't be
            written; or one lies in the other.
    """
    source, place = absolute(source, "source"), open_destination(destination)
    check_source(source, tar_members=rules is not None and rules.tar_members)
    if rules:
        _check_path_column(source, rules.path_column)
    check_destination(place.location)
    check_links(place.location, (IMAGES, RUNS, FINDINGS, WORK))
    _check_unused(place)
    check_apart(source, place.location)
    return source, place


def _check_path_column(source: str, column: str | None) -> None:
    """Raise `SettingsError` if a local list has no column of addresses, or a column is named of what is no list."""
    if not is_list(source):
        if column:
            raise InvalidSettingError(
                f"`path_column={column}` is for lists of images, and {source} is none: leave it out."
            )
    elif not is_url(source):
        from darkroom.tasks.image_list import check_list  # imports DuckDB

        check_list(source, column)


def _check_unused(destination: Destination) -> None:
    """Raise `SettingsError` if `images/` or `runs/` holds anything that no run has made."""
    store = destination.store
    with reading():
        names = set(store.children(""))
    if not names.isdisjoint({f"{WORK}/", MANIFEST}) or (f"{RUNS}/" in names and destination.run_files()):
        return
    if used := next((folder for folder in (IMAGES, RUNS) if _holds_anything(store, folder)), None):
        raise SettingsError(
            f"destination: {store.where(used)} holds something that no run of Darkroom has made, and would be written "
            "to. Use another destination, or move that away."
        )


def _holds_anything(store: Store, folder: str) -> bool:
    try:
        return next(store.children(folder), None) is not None
    except StorageError:  # not a folder, or not this user's
        return True


def check_kept_destination(destination: str) -> Destination:
    """Return a destination that runs have written to.

    Raises:
        SettingsError: no run has written to it, or it can't be written to, which its lease needs.
    """
    place = open_destination(destination)
    check_is_destination(place)
    check_destination(place.store.where(WORK) if f"{WORK}/" in place.store.children("") else place.location)
    check_links(place.location, (IMAGES, RUNS, FINDINGS, WORK))
    return place


def check_is_destination(destination: Destination) -> None:
    """Raise `SettingsError` if runs have never used a location, or it can't be read."""
    try:
        names = {name.removesuffix("/") for name in destination.store.children("")}
    except Obstructed as error:
        raise SettingsError(f"destination: {destination.location} is a file. Give the folder of a dataset.") from error
    except StorageError as error:
        raise SettingsError(
            f"destination: {destination.location} can't be read. Grant this user permission to list it."
        ) from error
    if names.isdisjoint({WORK, MANIFEST, RUNS}):
        raise SettingsError(f"{destination.location} is not a destination of Darkroom. Has a run ever used it?")


def as_settings(model: type[S], value: Any, name: str) -> S:
    """Return the value of a parameter as settings.

    Raises:
        InvalidSettingError: one of the settings is wrong; or it is neither a model nor a dictionary.
    """
    if not isinstance(value, model | dict):
        raise InvalidSettingError(f"`{name}`: give a {model.__name__}, not {value!r}.")
    return model.model_validate(value)


def check_sample(sample: Any) -> None:
    """Raise `SettingsError` unless a sample is a number above 0 and up to 1."""
    is_number = isinstance(sample, int | float)
    if not is_number or not 0 < sample <= 1:
        given = f"{sample:g}" if is_number else repr(sample)
        raise SettingsError(
            f"`sample={given}`: give a number above 0 and up to 1, such as 0.1 for a tenth of the outputs."
        )


def check_compute(compute: Compute) -> None:
    """Raise `InvalidSettingError` if the cluster class can't be imported, or lacks an argument that is set."""
    if not (compute.cluster_class or compute.cluster_kwargs):
        return
    name = compute.cluster_class or "distributed.LocalCluster"
    module, _, attribute = name.rpartition(".")
    handler = signal.getsignal(signal.SIGINT)
    reason = "no module is named"
    try:
        cluster = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError) as error:
        cluster, reason = None, str(error)
    if signal.getsignal(signal.SIGINT) is not handler:  # dask_jobqueue replaces it as it is imported
        signal.signal(signal.SIGINT, handler)
    if cluster is None:
        raise InvalidSettingError(
            f"`cluster_class={name}` can't be imported ({reason}). Give the full name of a Dask cluster class, and "
            "install the package that it comes from."
        )
    _check_arguments("cluster_kwargs", name, compute.cluster_kwargs, _arguments(cluster))
    _check_arguments("adapt_kwargs", f"the method 'adapt' of {name}", compute.adapt_kwargs, _adapt_arguments(cluster))


def _check_arguments(setting: str, of: str, given: Iterable[str], known: set[str]) -> None:
    for argument in given:
        if known and argument not in known:
            raise InvalidSettingError(f"`{setting}`: {of} has no argument {argument!r}{did_you_mean(argument, known)}")


def _arguments(cluster: Callable[..., Any]) -> set[str]:
    """Return the names of the arguments that a cluster class takes; empty if it takes any."""
    from distributed import LocalCluster, Nanny, Worker

    # The local cluster passes unknown arguments on to nannies, and these to workers.
    if cluster is LocalCluster:
        return _named(LocalCluster, Nanny, Worker, *Worker.__mro__)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in inspect.signature(cluster).parameters.values())
    return set() if takes_any else _named(cluster)


def _adapt_arguments(cluster: Callable[..., Any]) -> set[str]:
    """Return the names of the arguments that a cluster's `adapt` takes; empty if it isn't one of Dask's classes."""
    from distributed.deploy.adaptive import Adaptive
    from distributed.deploy.cluster import Cluster

    if not (isinstance(cluster, type) and issubclass(cluster, Cluster)):
        return set()
    # Each class passes unknown arguments on to the class that it extends, and the last one to `Adaptive`.
    methods = [kind.__dict__["adapt"] for kind in cluster.__mro__ if "adapt" in kind.__dict__]
    return _named(*methods, Adaptive) - {"self", "cluster"}


def _named(*callables: Callable[..., Any]) -> set[str]:
    parameters = [each for one in callables for each in inspect.signature(one).parameters.values()]
    return {each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}


def check_recipe(destination: Destination, recipe: Recipe, rules: Rules) -> None:
    """Check that a destination holds outputs of this recipe, or none.

    Raises:
        SettingsError: it belongs to another recipe, and `rebuild` isn't set.
        DarkroomError: its manifest, or the job of an interrupted run, can't be read.
    """
    # Slow to import, and not needed to check locations.
    from darkroom.tasks.dataset.manifest import ManifestInfo, read_info
    from darkroom.tasks.recover import read_job

    info = read_info(destination)
    if rules.rebuild:
        return
    known: list[ManifestInfo | Job] = [info] if info else []
    known += [read_job(workspace) for workspace in destination.unfinished()]
    other = next((one for one in known if one.recipe_id != recipe.recipe_id), None)
    if other is None:
        return
    old, new = other.recipe.model_dump(), recipe.model_dump()
    changes = [f"`{name}` {old[name]} → {new[name]}" for name in new if old[name] != new[name]]
    difference = (
        ", ".join(changes) or "Darkroom or its codec libraries have other versions, which may make other pixels"
    )
    raise SettingsError(
        f"destination: {destination.location} belongs to another recipe ({difference}). Use another destination, or "
        "set `rebuild=True` to make all of its images again."
    )


def is_published(destination: Destination) -> bool:
    """Return whether a destination has a manifest, whole or not.

    Raises:
        SettingsError: this user may not look.
        DarkroomError: the store does not answer.
    """
    with reading():
        return exists(destination.store, MANIFEST)


def check_manifest(destination: Destination) -> None:
    """Check that the manifest is intact, and present if any run has published.

    Raises:
        SettingsError: this user may not read it.
        DarkroomError: it is missing or damaged, or was written by another version of Darkroom.
    """
    from darkroom.tasks.dataset.manifest import read_whole, rebuild_remedy

    if read_whole(destination) is None and (published := _published(destination)):
        manifest, runs = destination.store.where(MANIFEST), destination.store.where(RUNS)
        raise DarkroomError(
            f"{manifest} is missing, although {runs} has the files of {counted(len(published), 'run')}. "
            f"{rebuild_remedy(destination)} To make all outputs again, move {runs} away."
        )


def _published(destination: Destination) -> set[str]:
    """Return the paths of the files of runs that published a manifest."""
    from darkroom.tasks.recover import read_job

    unfinished = {f"{RUNS}/{read_job(each).run_file}" for each in destination.unfinished()}
    return set(destination.run_files()) - unfinished
