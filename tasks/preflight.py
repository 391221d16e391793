"""Find what is wrong with settings, and with what they point at, before any work starts."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from darkroom.tasks.dataset.layout import Destination
from darkroom.tasks.errors import DarkroomError, SettingsError
from darkroom.tasks.settings import Compute, Job, Recipe, Rules
from darkroom.tasks.storage.local import local_folder


def check_locations(source: str, destination: str) -> tuple[Path, Destination]:
    """Return source and destination as absolute paths.

    Raises:
        SettingsError: the source can't be read, the destination can't be written, or one lies in the other.
    """
    source_path = local_folder(source, "source")
    destination_path = local_folder(destination, "destination")
    _check_source(source_path)
    _check_destination(destination_path)
    _check_links(Destination(destination_path))
    _check_unused(Destination(destination_path))
    real_source, real_destination = source_path.resolve(), destination_path.resolve()
    if real_source == real_destination:
        raise SettingsError(f"source and destination are the same folder, {source_path}. Use another destination.")
    if real_source in real_destination.parents:
        raise SettingsError(
            f"destination: {destination_path} lies inside the source, so that outputs would be taken for "
            "sources. Use a destination outside it."
        )
    if real_destination in real_source.parents:
        raise SettingsError(
            f"source: {source_path} lies inside the destination, which belongs to Darkroom. Use a destination "
            "that does not contain the source."
        )
    return source_path, Destination(destination_path)


def _check_source(source: Path) -> None:
    if not os.path.lexists(source):
        raise SettingsError(f"source: {source} does not exist. Give the folder that holds the images.")
    if not source.is_dir():
        raise SettingsError(f"source: {source} is not a folder. Give the folder that holds the images.")
    if not os.access(source, os.R_OK | os.X_OK):
        raise SettingsError(f"source: {source} can't be read. Grant this user permission to list it.")


def _check_destination(destination: Path) -> None:
    if os.path.lexists(destination) and not destination.is_dir():
        raise SettingsError(f"destination: {destination} is not a folder. Give another one, or move that away.")
    existing = next(path for path in (destination, *destination.parents) if os.path.exists(path))
    if not existing.is_dir():
        raise SettingsError(f"destination: {existing} is not a folder, so that {destination} can't be made in it.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SettingsError(
            f"destination: {existing} can't be written to. Grant this user permission, or give another."
        )


def _check_links(destination: Destination) -> None:
    for folder in (destination.images, destination.runs, destination.findings, destination.work):
        if folder.is_symlink():
            raise SettingsError(
                f"destination: {folder} is a symbolic link, and what it leads to would be written to and deleted from. "
                "Replace it by a folder, or make the destination itself the link."
            )


def _check_unused(destination: Destination) -> None:
    """Make sure that what lies where outputs go was made by runs."""
    if destination.work.exists() or destination.manifest.exists() or any(destination.runs.glob("*.parquet")):
        return
    if used := next((path for path in (destination.images, destination.runs) if _holds_anything(path)), None):
        raise SettingsError(
            f"destination: {used} holds something that no run of Darkroom has made, and would be written to. Use "
            "another destination, or move that away."
        )


def _holds_anything(path: Path) -> bool:
    try:
        return next(path.iterdir(), None) is not None
    except FileNotFoundError:
        return False
    except OSError:  # not a folder, or not this user's
        return True


def check_kept_destination(destination: str) -> Destination:
    """Return a destination that runs have written to.

    Raises:
        SettingsError: it isn't one, or can't be written to, which holding its lease takes.
    """
    place = Destination(local_folder(destination, "destination"))
    check_is_destination(place)
    _check_destination(place.work if place.work.is_dir() else place.root)
    _check_links(place)
    return place


def check_is_destination(destination: Destination) -> None:
    """Make sure that a folder is one that runs have used.

    Raises:
        SettingsError: it isn't, or can't be read.
    """
    if not os.access(destination.root, os.R_OK | os.X_OK) and os.path.lexists(destination.root):
        raise SettingsError(f"destination: {destination.root} can't be read. Grant this user permission to list it.")
    if not any(path.exists() for path in (destination.work, destination.manifest, destination.runs)):
        raise SettingsError(f"{destination.root} is not a destination of Darkroom. Has a run ever used it?")


def check_sample(sample: float) -> None:
    """Make sure that a sample is a part of something.

    Raises:
        SettingsError: it isn't above 0 and up to 1.
    """
    if not 0 < sample <= 1:
        raise SettingsError(f"sample: {sample:g} is not above 0 and up to 1. For a tenth of the outputs, give 0.1.")


def check_compute(compute: Compute) -> None:
    """Make sure that the cluster class is one.

    Raises:
        SettingsError: it can't be imported.
    """
    if not compute.cluster_class:
        return
    module, _, name = compute.cluster_class.rpartition(".")
    try:
        found = hasattr(importlib.import_module(module), name) if module else False
    except ImportError:
        found = False
    if not found:
        raise SettingsError(
            f"cluster_class: {compute.cluster_class} can't be imported. Give the full name of a Dask cluster class, "
            "and install the package that it comes from."
        )


def check_recipe(destination: Destination, recipe: Recipe, rules: Rules) -> None:
    """Make sure that a destination holds outputs of this recipe, or none.

    Raises:
        SettingsError: it belongs to another recipe, and `rebuild` isn't set.
        DarkroomError: its manifest, or the job of an interrupted run, can't be read.
    """
    # Not needed to find what is wrong with locations, and slow to import.
    from darkroom.tasks.dataset.manifest import ManifestInfo, read_info
    from darkroom.tasks.recover import read_job

    info = read_info(destination.manifest)
    if rules.rebuild:
        return
    known: list[ManifestInfo | Job] = [info] if info else []
    known += [read_job(workspace) for workspace in destination.unfinished()]
    other = next((one for one in known if one.recipe_id != recipe.recipe_id), None)
    if other is None:
        return
    old, new = other.recipe.model_dump(), recipe.model_dump()
    changes = [f"{name} {old[name]!r} → {new[name]!r}" for name in new if old[name] != new[name]]
    difference = ", ".join(changes) or "the codec libraries have other versions, which may make other pixels"
    raise SettingsError(
        f"destination: {destination.root} belongs to another recipe ({difference}). Use another destination, or "
        "set rebuild to make all of its images again."
    )


def check_manifest(destination: Destination) -> None:
    """Make sure that a destination that runs have published to has a manifest, and that it is whole.

    Raises:
        SettingsError: this user may not read it.
        DarkroomError: it hasn't, it isn't, or it was written by another version of Darkroom; says what to do.
    """
    from darkroom.tasks.dataset.manifest import read_whole, way_out

    if read_whole(destination.manifest) is None and (published := _published(destination)):
        raise DarkroomError(
            f"{destination.manifest} is missing, though {len(published):,} runs have published one, says "
            f"{destination.runs}. {way_out(destination.manifest)} To make all outputs again, move {destination.runs} "
            "away."
        )


def _published(destination: Destination) -> set[str]:
    """Return the names of the files of runs that came to publish a manifest."""
    from darkroom.tasks.recover import read_job

    unfinished = {read_job(each).run_file for each in destination.unfinished()}
    return {file.name for file in destination.run_files()} - unfinished
