"""Find what is wrong with settings, and with what they point at, before any work starts."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.destination import Destination
from tasks.errors import SettingsError
from tasks.recipe import Recipe, Rules
from tasks.storage import local_folder


def check_locations(source: str, destination: str) -> tuple[Path, Destination]:
    """Return source and destination as absolute paths.

    Raises:
        SettingsError: the source can't be read, the destination can't be written, or one lies in the other.
    """
    source_path = local_folder(source, "source")
    destination_path = local_folder(destination, "destination")
    _check_source(source_path)
    _check_destination(destination_path)
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


def check_recipe(destination: Destination, recipe: Recipe, rules: Rules) -> None:
    """Make sure that a destination holds outputs of this recipe, or none.

    Raises:
        SettingsError: it belongs to another recipe, and `rebuild` isn't set.
        DarkroomError: its manifest can't be read.
    """
    from tasks.manifest import read_info  # not needed to find what is wrong with locations

    info = read_info(destination.manifest)
    if info is None or info.recipe_id == recipe.recipe_id or rules.rebuild:
        return
    old, new = info.recipe.model_dump(), recipe.model_dump()
    changes = [f"{name} {old[name]!r} → {new[name]!r}" for name in new if old[name] != new[name]]
    difference = ", ".join(changes) or "the codec libraries have other versions, which may make other pixels"
    raise SettingsError(
        f"destination: {destination.root} belongs to another recipe ({difference}). Use another destination, or "
        "set rebuild to make all of its images again."
    )
