"""Create or update the deployments on a Prefect server (`make deploy`)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.utilities.templating import PlaceholderType, find_placeholders
from prefect.workers.process import ProcessWorker

from darkroom.deployments import automations
from darkroom.deployments.notify import VARIABLE as NOTIFY
from darkroom.deployments.notify import notification_block
from darkroom.flows.cli import terminal
from darkroom.flows.runtime.local_server import check_api
from darkroom.tasks.errors import DarkroomError, SettingsError
from darkroom.tasks.storage.locations import absolute

ROOT = Path(__file__).resolve().parents[1]
"""The checkout, or the installed package: the folder to which the entrypoints in `prefect.yaml` are relative."""

PREFECT_FILE = ROOT / "deployments/prefect.yaml"
POOL = "darkroom"
FOLDERS = ("source", "destination")
"""Parameters without which a deployment can't run."""


def main() -> None:
    """Deploy, and print a line about each object. Exit codes: 0 success, 1 failure, 2 wrong settings."""
    with terminal.exit_on_error():
        for line in deploy():
            print(line)


def deploy() -> Iterator[str]:
    """Update the configured server's pool, deployments and automations; yield a line about each.

    Raises:
        SettingsError: no server is configured or answers, or the environment is wrong.
        DarkroomError: Prefect refuses a deployment.
    """
    check_server()
    entries = read_entries()
    with get_client(sync_client=True) as client:
        # Check the settings before anything is changed.
        block = notification_block(client, target) if (target := os.environ.get(NOTIFY)) else None
        before = {entry.name: _find(client, entry.name) for entry in entries}
        _check_folders_stay(entries, before)
        folders = _absolute_folders(entries)
        yield _put_pool(client)
        _put_deployments(folders)
        for entry in entries:
            yield _put_schedules(client, entry, before[entry.name])
        for automation in (automations.zombies(), automations.unstarted()):
            automations.put(client, automation)
            yield f"automation  {automation.name}"
        if block:
            automations.put(client, automations.notification(block[0], str(get_current_settings().ui_url)))
            yield f"automation  {automations.NOTIFICATION}: by {block[1]}"
        elif client.read_automations_by_name(automations.NOTIFICATION):
            yield f"automation  {automations.NOTIFICATION}: as before, {NOTIFY} is not set"
        else:
            yield f"automation  none for runs that failed or crashed: {NOTIFY} is not set"


def check_server() -> None:
    """Raise `SettingsError` if no Prefect server is configured, or it doesn't answer."""
    if not get_current_settings().api.url:
        raise SettingsError(
            "PREFECT_API_URL is not set: there is no Prefect server to work with. Start one with 'python -m "
            "darkroom.deployments.server' and set it to http://127.0.0.1:4200/api, or let 'make stack' do all of it."
        )
    check_api("Start it, or mend the setting.")


@dataclass(frozen=True, slots=True)
class Entry:
    """A deployment of `prefect.yaml`."""

    name: str
    """As `flow/deployment`."""

    variables: frozenset[str]
    """The environment variables that set its folders."""

    inactive: frozenset[str]
    """The slugs of the schedules that the file declares inactive."""

    @property
    def unset(self) -> str:
        """The names of the unset variables, joined by "and"."""
        return " and ".join(sorted(name for name in self.variables if not os.environ.get(name)))


def read_entries() -> list[Entry]:
    """Return the deployments of `prefect.yaml`."""
    return [_entry(declared) for declared in yaml.safe_load(PREFECT_FILE.read_text())["deployments"]]


def _entry(declared: dict[str, Any]) -> Entry:
    placeholders = find_placeholders([declared.get("parameters", {}).get(folder) for folder in FOLDERS])
    return Entry(
        # A flow has the name of its function.
        name=f"{declared['entrypoint'].rpartition(':')[2]}/{declared['name']}",
        variables=frozenset(one.name.removeprefix("$") for one in placeholders if one.type is PlaceholderType.ENV_VAR),
        inactive=frozenset(one["slug"] for one in declared.get("schedules", []) if not one.get("active", True)),
    )


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    with suppress(ObjectNotFound):
        return client.read_deployment_by_name(name)
    return None


def _check_folders_stay(entries: list[Entry], before: dict[str, DeploymentResponse | None]) -> None:
    """Raise `SettingsError` if a deployment would lose the folders that it has."""
    for entry in entries:
        known = before[entry.name]
        if entry.unset and known and all(known.parameters.get(folder, "unset") for folder in FOLDERS):
            raise SettingsError(
                f"{entry.unset} not set, though {entry.name} was deployed with folders. Nothing was changed. Set them "
                "as they were, or delete that deployment first if it is not to have any."
            )


def _put_pool(client: SyncPrefectClient) -> str:
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    return f"work pool   {pool.name} ({pool.type})"


def _absolute_folders(entries: list[Entry]) -> dict[str, str]:
    """Return the variables of folders that are set, with absolute locations; raise `SettingsError` for a wrong one."""
    variables = {name for entry in entries for name in entry.variables}
    return {name: absolute(os.environ[name], name) for name in sorted(variables) if os.environ.get(name)}


def _put_deployments(folders: dict[str, str]) -> None:
    """Run `prefect deploy` with these variables; raise `DarkroomError` with its output if it fails."""
    done = subprocess.run(  # noqa: S603 - Prefect, run by this interpreter
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(PREFECT_FILE), "--all"],
        # Entrypoints are relative to the working directory, and flow runs start in $PWD.
        cwd=ROOT,
        env={**os.environ, "PWD": str(ROOT), **folders},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DarkroomError(f"Prefect refused {PREFECT_FILE}:\n{done.stdout.strip()}")


def _put_schedules(client: SyncPrefectClient, entry: Entry, before: DeploymentResponse | None) -> str:
    """Pause a deployment's schedules if it lacks folders, and resume them once it has them.

    Schedules that a user has paused stay paused: Prefect keeps the state of schedules with a slug.
    """
    deployment = client.read_deployment_by_name(entry.name)
    lacked_folders = before is not None and any(before.parameters.get(folder) == "" for folder in FOLDERS)
    facts = []
    for schedule in deployment.schedules:
        active = schedule.active
        if entry.unset:
            active = False
        elif lacked_folders and schedule.slug not in entry.inactive:
            active = True
        if active != schedule.active:
            client.update_deployment_schedule(deployment.id, schedule.id, active=active)
        facts.append(f"{_describe(schedule.schedule)}{'' if active else ', paused'}")
    if entry.unset:
        facts.append(f"{entry.unset} not set")
    return f"deployment  {entry.name}: {'; '.join(facts) or 'no schedule'}"


def _describe(schedule: SCHEDULE_TYPES) -> str:
    if isinstance(schedule, CronSchedule):
        return f"{schedule.cron} {schedule.timezone or 'UTC'}"
    if isinstance(schedule, IntervalSchedule):
        return f"every {schedule.interval}"
    return str(getattr(schedule, "rrule", "no schedule"))


if __name__ == "__main__":
    main()
