"""The base of the reports of all flows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from darkroom.tasks.reporting.text import first_sentence, plain

PROBLEMS_IN_MESSAGE = 5
"""Upper limit on the problems in a failed run's state message; its summary lists more."""

PROBLEMS_SHOWN = 20
"""A summary lists this many problems."""


class Report(BaseModel):
    """What a flow run did, created at its end."""

    model_config = ConfigDict(frozen=True)

    destination: str
    run_id: str
    seconds: float = 0.0
    work_seconds: float = 0.0
    """Seconds of these in which shards ran."""

    interrupted: bool = False
    """Whether a signal or a request to cancel it ended the run."""

    problems: tuple[str, ...] = ()
    """Why the run counts as failed."""

    def __str__(self) -> str:
        """Return the headline, or why the run failed."""
        return self.failure() or self.headline()

    @property
    def succeeded(self) -> bool:
        """Whether the run completed and nothing is wrong."""
        return not self.problems

    @abstractmethod
    def headline(self) -> str:
        """Return one line about what the run did."""

    def failure(self) -> str:
        """Return why the run failed, one reason a line."""
        return "\n".join(first_problems(self.problems))


def first_problems(problems: Sequence[str]) -> list[str]:
    """Return the problems for a state's message, and a line with the number of further ones."""
    more = len(problems) - PROBLEMS_IN_MESSAGE
    return [
        *problems[:PROBLEMS_IN_MESSAGE],
        *([f"And {more:,} more problems, which the summary lists."] if more > 0 else []),
    ]


def problems_markdown(problems: Sequence[str]) -> Iterator[str]:
    """Yield a Markdown paragraph for each of the first problems, and one about the number of further ones."""
    for problem in problems[:PROBLEMS_SHOWN]:
        reason, remedy = first_sentence(problem)
        yield f"**{plain(reason)}**{' ' if remedy else ''}{plain(remedy)}"
    if len(problems) > PROBLEMS_SHOWN:
        yield f"And {len(problems) - PROBLEMS_SHOWN:,} more such problems."
