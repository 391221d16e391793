"""Deploy everything to a Prefect server: `make deploy`. It can be repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
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

CHECKOUT = Path(__file__).resolve().parents[1]
PREFECT_FILE = CHECKOUT / "deployments/prefect.yaml"
POOL = "darkroom"
NEEDED = ("source", "destination")
"""Parameters without which a schedule makes no sense."""


def main() -> None:
    """Deploy, and say what was done. Exit codes: 0 all is well, 1 it did not work, 2 wrong settings."""
    with terminal.exit_on_error():
        for line in deploy():
            print(line)


def deploy() -> Iterator[str]:
    """Bring pool, deployments and automations of the configured server up to date, and say what was done.

    Raises:
        SettingsError: no server is configured or answers, or the environment is not as it should be.
        DarkroomError: Prefect refuses a deployment.
    """
    if not get_current_settings().api.url:
        raise SettingsError(
            "PREFECT_API_URL is not set: there is no Prefect server to deploy to. Start one with 'prefect server "
            "start' and set it to http://127.0.0.1:4200/api, or let 'make stack' do all of it."
        )
    check_api("Start it, or mend the setting.")
    wanted = read_wanted()
    with get_client(sync_client=True) as client:
        # First what the user may have got wrong, before anything is changed.
        block = notification_block(client, target) if (target := os.environ.get(NOTIFY)) else None
        _check_nothing_is_lost(client, wanted)
        yield _put_pool(client)
        unready = {one.full_name for one in wanted if _lacks_parameters(client, one)}
        _put_deployments()
        for one in wanted:
            yield _put_schedules(client, one, was_unready=one.full_name in unready)
        for automation in (automations.zombies(), automations.unstarted()):
            automations.put(client, automation)
            yield f"automation  {automation.name}"
        if block:
            automations.put(client, automations.notification(block[0], str(get_current_settings().ui_url)))
            yield f"automation  {automations.NOTIFICATION}: by {block[1]}"
        elif client.read_automations_by_name(automations.NOTIFICATION):
            yield f"automation  {automations.NOTIFICATION}: as before, {NOTIFY} is not set"
        else:
            yield f"automation  nobody is told of runs that failed or crashed: {NOTIFY} is not set"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A deployment of `prefect.yaml`."""

    full_name: str
    unset: tuple[str, ...]
    """Environment variables that are not set and without which it can't run."""

    off: frozenset[str]
    """The slugs of schedules that the file itself has as inactive."""


def read_wanted() -> list[Wanted]:
    """Return the deployments of `prefect.yaml`."""
    entries: list[dict[str, Any]] = yaml.safe_load(PREFECT_FILE.read_text())["deployments"]
    return [
        Wanted(
            # Flows have the names of their functions.
            full_name=f"{entry['entrypoint'].rpartition(':')[2]}/{entry['name']}",
            unset=_unset([entry.get("parameters", {}).get(name) for name in NEEDED]),
            off=frozenset(one["slug"] for one in entry.get("schedules", []) if not one.get("active", True)),
        )
        for entry in entries
    ]


def _unset(needed: list[Any]) -> tuple[str, ...]:
    placeholders = find_placeholders(needed)
    names = {one.name.removeprefix("$") for one in placeholders if one.type is PlaceholderType.ENV_VAR}
    return tuple(sorted(name for name in names if not os.environ.get(name)))


def _put_pool(client: SyncPrefectClient) -> str:
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
    return f"work pool   {pool.name} ({pool.type})"


def _put_deployments() -> None:
    """Let Prefect deploy all that the file has, as a user would.

    Raises:
        DarkroomError: it refuses; with what it said.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(PREFECT_FILE), "--all"]
    done = subprocess.run(  # noqa: S603 - Prefect, by this interpreter
        command,
        # Entrypoints are relative to where the command is run, and so is the folder that flow runs start in.
        cwd=CHECKOUT,
        env={**os.environ, "PWD": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DarkroomError(f"Prefect did not take {PREFECT_FILE}:\n{done.stdout.strip()}")


def _find(client: SyncPrefectClient, wanted: Wanted) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(wanted.full_name)
    except ObjectNotFound:
        return None


def _check_nothing_is_lost(client: SyncPrefectClient, wanted: list[Wanted]) -> None:
    """Make sure that no deployment loses the folders that it was given before.

    Raises:
        SettingsError: one would.
    """
    for one in wanted:
        known = _find(client, one) if one.unset else None
        if known and all(known.parameters.get(name, "unset") for name in NEEDED):
            raise SettingsError(
                f"{' and '.join(one.unset)} not set, though {one.full_name} was deployed with folders. Nothing was "
                "changed. Set them as they were, or delete that deployment first if it is not to have any."
            )


def _lacks_parameters(client: SyncPrefectClient, wanted: Wanted) -> bool:
    """Say whether a deployment was made when variables that it needs were not set."""
    known = _find(client, wanted)
    return known is not None and any(known.parameters.get(name) == "" for name in NEEDED)


def _put_schedules(client: SyncPrefectClient, wanted: Wanted, *, was_unready: bool) -> str:
    """Pause the schedules of a deployment that lacks something, and let go on those that lacked it until now.

    Schedules that a user has paused stay so: Prefect keeps the state of those that have a slug.
    """
    deployment = client.read_deployment_by_name(wanted.full_name)
    said = []
    for schedule in deployment.schedules:
        active = schedule.active
        if wanted.unset:
            active = False
        elif was_unready and schedule.slug not in wanted.off:
            active = True
        if active != schedule.active:
            client.update_deployment_schedule(deployment.id, schedule.id, active=active)
        said.append(f"{_describe(schedule.schedule)}{'' if active else ', paused'}")
    if wanted.unset:
        said.append(f"{' and '.join(wanted.unset)} not set")
    return f"deployment  {wanted.full_name}: {'; '.join(said) or 'no schedule'}"


def _describe(schedule: SCHEDULE_TYPES) -> str:
    if isinstance(schedule, CronSchedule):
        return f"{schedule.cron} {schedule.timezone or 'UTC'}"
    if isinstance(schedule, IntervalSchedule):
        return f"every {schedule.interval}"
    return str(getattr(schedule, "rrule", "no schedule"))


if __name__ == "__main__":
    main()
