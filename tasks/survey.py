"""Compare the list of outputs with the manifest, and plan which outputs to read again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from darkroom.tasks.dataset import sql
from darkroom.tasks.dataset.layout import MANIFEST, Destination, Workspace
from darkroom.tasks.dataset.manifest import ManifestInfo, read_info
from darkroom.tasks.dataset.rows import PlannedOutput, arrow_schema
from darkroom.tasks.dataset.unlisted import below
from darkroom.tasks.discover import survey_outputs
from darkroom.tasks.errors import DarkroomError
from darkroom.tasks.plan import cut_shards
from darkroom.tasks.preflight import check_manifest
from darkroom.tasks.storage.local_files import TEMPORARY_PREFIX


@dataclass(frozen=True, slots=True)
class Survey:
    """The figures of a verification's plan."""

    shards: tuple[int, ...]
    """Number of outputs of each shard, a row group of the plan."""

    outputs: int
    """Number of outputs that the manifest names."""

    @property
    def reread(self) -> int:
        """Number of outputs to read again."""
        return sum(self.shards)


def check_settled(destination: Destination) -> ManifestInfo:
    """Return the manifest's info; raise `DarkroomError` if it is missing or damaged, or a run has not ended."""
    if unfinished := destination.unfinished():
        raise DarkroomError(
            f"Run {unfinished[-1].run_id} did not end, and its work is not in the manifest of "
            f"{destination.location} yet. Start 'darkroom run', which adopts it, and verify then."
        )
    check_manifest(destination)
    info = read_info(destination)
    if info is None:
        raise DarkroomError(
            f"No run has published anything to {destination.location} yet, so that there is no manifest to compare "
            "outputs with. Start 'darkroom run', and verify then."
        )
    return info


def survey(workspace: Workspace, sample: float, workers: Callable[[], int]) -> Survey:
    """Write the findings from the list of outputs to the journal, and the outputs to read again to `workspace.plan`.

    Args:
        workspace: the verification's workspace.
        sample: the fraction of the outputs to read again, 0 to 1; the run id decides which.
        workers: returns how many shards are processed at a time; called only if there is work.
    """
    store = workspace.store
    with workspace.scratch() as scratch, sql.connect(scratch) as db:
        listed, compared, found, plan = (
            scratch / f"{name}.parquet" for name in ("listed", "compared", "found", "plan")
        )
        unlisted = survey_outputs(workspace.destination, listed)
        db.execute(f"CREATE VIEW manifest AS FROM {sql.parquet(store.local(MANIFEST, scratch))}")
        db.execute(f"CREATE VIEW outputs AS FROM {sql.parquet(listed)}")
        db.register("unlisted", pa.table({"folder": pa.array(unlisted, pa.string())}))
        compared_sql = _COMPARED_SQL.format(faults=_FAULTS_SQL, unlisted=below(db, "file_name", unlisted))
        sql.copy(db, compared_sql, compared)
        db.execute(f"CREATE VIEW compared AS FROM {sql.parquet(compared)}")
        sql.copy(db, _FOUND_SQL.format(temporary=sql.text(TEMPORARY_PREFIX)), found)
        store.put_file(f"{workspace.journal}/listed.parquet", found)
        [(outputs,)] = db.execute("SELECT count(*) FROM compared WHERE status = 'ok'").fetchall()
        _choose(db, sample, workspace.run_id)
        shards = tuple(cut_shards(db, plan, arrow_schema(PlannedOutput), "output_bytes", workers))
        if shards:
            store.put_file(workspace.plan, plan)
    return Survey(shards, outputs)


_FAULTS_SQL = """
    SELECT *, CASE
        -- The window has no order of its own: it is the file's.
        WHEN source_path <= lag(source_path) OVER () THEN 'it is not in the order of source paths'
        WHEN status NOT IN ('ok', 'failed') THEN 'its status is neither ok nor failed'
        WHEN status = 'failed' AND file_name IS NOT NULL THEN 'it failed, and yet names an output'
        WHEN status = 'failed' AND error_code IS NULL THEN 'it failed, and does not say why'
        WHEN status = 'failed' THEN NULL
        WHEN file_name IS NULL THEN 'it names no output'
        WHEN NOT starts_with(file_name, 'images/') OR regexp_matches(file_name, '(^|/)[.]{0,2}(/|$)')
            THEN 'its output is not below images/'
        WHEN format IS NULL OR width IS NULL OR height IS NULL OR channels IS NULL OR output_bytes IS NULL
            OR output_bytes < 0 OR output_sha256 IS NULL OR NOT regexp_full_match(output_sha256, '[0-9a-f]{64}')
            THEN 'it does not say what its output is'
    END AS fault
    FROM manifest
"""
_COMPARED_SQL = """
    SELECT
        source_path, file_name, format, width, height, channels, output_bytes, output_sha256, status,
        size IS NOT NULL AS present,
        CASE
            WHEN fault IS NOT NULL THEN 'invalid_row'
            WHEN status = 'failed' THEN NULL
            WHEN size IS NULL AND {unlisted.condition} THEN 'unreadable'
            WHEN size IS NULL THEN 'missing'
            WHEN size <> output_bytes THEN 'damaged'
        END AS kind,
        CASE
            WHEN fault IS NOT NULL THEN fault
            WHEN status = 'failed' THEN NULL
            WHEN size IS NULL AND {unlisted.condition} THEN 'its folder could not be listed'
            WHEN size IS NULL THEN 'there is no such file'
            WHEN size < 0 THEN 'it is no regular file'
            WHEN size <> output_bytes THEN format('{{:,}} bytes instead of {{:,}}', size, output_bytes)
        END AS detail
    FROM ({faults}) LEFT JOIN outputs USING (file_name) {unlisted.join}
"""
_FOUND_SQL = """
    SELECT kind, file_name, source_path, detail, present FROM compared WHERE kind IS NOT NULL
    UNION ALL
    SELECT
        'foreign', file_name, NULL,
        CASE
            WHEN starts_with(string_split(file_name, '/')[-1], {temporary}) THEN 'left over by an interrupted write'
            WHEN size < 0 THEN 'it is no regular file'
            ELSE format('{{:,}} byte{{}}', size, if(size = 1, '', 's'))
        END,
        true
    FROM outputs ANTI JOIN (SELECT file_name FROM compared WHERE file_name IS NOT NULL) USING (file_name)
    UNION ALL
    SELECT 'unreadable', folder, NULL, 'the folder could not be listed', false FROM unlisted
"""


def _choose(db: sql.Connection, sample: float, run_id: str) -> None:
    """Create the view `work` of the outputs to read again: a sample of those with the right size."""
    readable = "FROM compared WHERE kind IS NULL AND status = 'ok'"
    if sample == 1:
        db.execute(f"CREATE VIEW work AS {readable}")
        return
    mark = f"hash(file_name || {sql.text(run_id)})"
    [(count,)] = db.execute(f"SELECT count(*) {readable}").fetchall()
    marks = f"SELECT {mark} AS mark {readable} ORDER BY mark LIMIT {math.ceil(sample * count)}"
    [(last,)] = db.execute(f"SELECT max(mark) FROM ({marks})").fetchall()
    db.execute(f"CREATE VIEW work AS {readable} AND {mark} <= {last or 0}")
