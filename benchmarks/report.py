"""Tables of the results, and whether the targets are met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.bench import (
    CAREFUL,
    COLD,
    COLD_NOOP,
    FIRST,
    HELP,
    IMPORT,
    INDEPENDENT,
    LABELS,
    LOOP,
    MEMORY_ROUND,
    POOL,
    SERVED,
    SERVED_NOOP,
    STATUS,
    THIN,
    Sample,
)
from benchmarks.corpora import Corpus

ORDER = (LOOP, POOL, INDEPENDENT, CAREFUL, THIN, COLD, SERVED, COLD_NOOP, SERVED_NOOP, HELP, STATUS)
WITHOUT_WORK = {COLD_NOOP, SERVED_NOOP, HELP, STATUS}
SMALL = {"small", "shared-imagenet"}
LEAST_GROWTH_SECONDS = 1.0
"""If the larger number of images takes less than this longer, the difference is noise."""

HEADER = (
    "",
    "wall s",
    "range",
    "wall / T",
    "images/s",
    "steady images/s",
    "range",
    "fixed s",
    "work s",
    "CPU s",
    "peak MB",
)

LEGEND = """\
T: the wall time of python -c "import prefect_dask". Medians of {rounds} interleaved round(s), all contenders in each;
range: lowest–highest of them. All images are in the page cache, for everyone; the disk is synced before each run.
steady images/s, fixed s: from the wall times at two numbers of images ({sizes}):
the images that come with each second beyond, and the seconds that would be left without any image (process start
and imports included).
work s: seconds in which shards ran, starting the Dask workers included, as darkroom run reports them.
CPU s: user + system of all processes; for runs with a server running, with what that server used meanwhile.
peak MB: highest memory of all processes at once, shared pages counted once (PSS, sampled every 0.1 s in a round
of its own that isn't timed); a server that runs already isn't counted."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, and their range."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one figure."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Results:
    """All samples, and the figures derived from them."""

    samples: Sequence[Sample]

    @property
    def import_s(self) -> Spread:
        """T: how long importing prefect_dask takes."""
        return Spread.of(self._values(IMPORT, "", 0, lambda sample: sample.wall_s))

    def wall(self, contender: str, corpus: Corpus) -> Spread:
        """Return the wall seconds for the smaller number of images."""
        return Spread.of(self._values(contender, corpus.name, corpus.sizes[0], lambda sample: sample.wall_s))

    def beyond(self, contender: str, other: str, corpus: Corpus) -> float:
        """Return by how many seconds a contender takes longer than another, in the median of the rounds."""
        ours, theirs = (
            self._values(each, corpus.name, corpus.sizes[0], lambda sample: sample.wall_s)
            for each in (contender, other)
        )
        return median(our - their for our, their in zip(ours, theirs, strict=True))

    def median_of(self, contender: str, corpus: Corpus, figure: Callable[[Sample], float | None]) -> float | None:
        """Return the median of a figure for the smaller number of images; None if it was never taken."""
        values = self._values(contender, corpus.name, corpus.sizes[0], figure)
        return median(values) if values else None

    def peak_mb(self, contender: str, corpus: Corpus) -> float | None:
        """Return the highest memory that was seen."""
        peaks = [
            sample.peak_mb
            for sample in self.samples
            if (sample.contender, sample.corpus) == (contender, corpus.name) and sample.peak_mb
        ]
        return max(peaks, default=None)

    def steady(self, contender: str, corpus: Corpus) -> Spread | None:
        """Return images per second of the time that grows with the number of images; None if that is noise."""
        slopes = self._seconds_per_image(contender, corpus)
        return Spread.of([1 / slope for slope in slopes]) if slopes and min(slopes) > 0 else None

    def fixed(self, contender: str, corpus: Corpus) -> float | None:
        """Return the seconds that don't grow with the number of images."""
        slopes = self._seconds_per_image(contender, corpus)
        walls = self._values(contender, corpus.name, corpus.sizes[0], lambda sample: sample.wall_s)
        left = [wall - slope * corpus.sizes[0] for wall, slope in zip(walls, slopes, strict=False)]
        return median(left) if left else None

    def share(self, contender: str, of: str, corpus: Corpus) -> Spread | None:
        """Return one contender's steady rate as a part of another's, by round."""
        ours, theirs = self._seconds_per_image(contender, corpus), self._seconds_per_image(of, corpus)
        if not ours or min(*ours, *theirs) <= 0:
            return None
        return Spread.of([their / our for our, their in zip(ours, theirs, strict=True)])

    def span_share(self, contender: str, of: str, corpus: Corpus) -> float | None:
        """Return the rate from a run's first finished image to its last, as a part of another's steady rate."""
        spans = self._values(contender, corpus.name, corpus.sizes[1], lambda sample: sample.span_s)
        theirs = self._seconds_per_image(of, corpus)
        return (corpus.sizes[1] - 1) / median(spans) * median(theirs) if spans else None

    def growth_s(self, contender: str, corpus: Corpus) -> float:
        """Return by how many seconds the larger number of images takes longer than the smaller one."""
        few, many = corpus.sizes
        return median(self._seconds_per_image(contender, corpus)) * (many - few)

    def _seconds_per_image(self, contender: str, corpus: Corpus) -> list[float]:
        few, many = corpus.sizes
        at_few, at_many = (
            self._values(contender, corpus.name, images, lambda sample: sample.wall_s) for images in corpus.sizes
        )
        return [(more - less) / (many - few) for less, more in zip(at_few, at_many, strict=False)]

    def _values(
        self, contender: str, corpus: str, images: int, figure: Callable[[Sample], float | None]
    ) -> list[float]:
        return [
            value
            for sample in self.samples
            if (sample.contender, sample.corpus, sample.images) == (contender, corpus, images)
            and sample.round != MEMORY_ROUND
            and (value := figure(sample)) is not None
        ]


def render(results: Results, corpora: Sequence[Corpus], machine: str) -> str:
    """Return all tables and the targets as text."""
    rounds = max(sample.round for sample in results.samples)
    sizes = "; ".join(f"{corpus.name} {corpus.sizes[0]:,} and {corpus.sizes[1]:,}" for corpus in corpora)
    t = results.import_s
    parts = [
        f"{machine}. T = {t.middle:.2f} s ({t.low:.2f}–{t.high:.2f})",
        *(_corpus_table(results, corpus) for corpus in corpora),
        LEGEND.format(rounds=rounds, sizes=sizes),
        _targets(results, corpora),
    ]
    return "\n\n".join(parts)


def _corpus_table(results: Results, corpus: Corpus) -> str:
    rows = [_row(results, contender, corpus) for contender in ORDER]
    if any((sample.contender, sample.corpus) == (FIRST, corpus.name) for sample in results.samples):
        rows.append(_row(results, FIRST, corpus))
    title = f"{corpus.name}: {corpus.sizes[0]:,} images, from {corpus.describes}"
    return f"{title}\n\n{_table(HEADER, rows)}"


def _row(results: Results, contender: str, corpus: Corpus) -> list[str]:
    wall = results.wall(contender, corpus)
    steady = results.steady(contender, corpus)
    works = contender not in WITHOUT_WORK
    return [
        LABELS[contender],
        f"{wall.middle:.2f}",
        f"{wall.low:.2f}–{wall.high:.2f}",
        f"{wall.middle / results.import_s.middle:.2f}",
        f"{corpus.sizes[0] / wall.middle:,.1f}" if works else "",
        f"{steady.middle:,.1f}" if steady and works else "",
        f"{steady.low:,.1f}–{steady.high:,.1f}" if steady and works else "",
        _number(results.fixed(contender, corpus), 2),
        _number(results.median_of(contender, corpus, lambda sample: sample.work_s), 2),
        _number(results.median_of(contender, corpus, lambda sample: sample.cpu_s), 1),
        _number(results.peak_mb(contender, corpus), 0),
    ]


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:,.{decimals}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are aligned as plain text too."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        f"| {row[0]:<{widths[0]}} | "
        + " | ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        + " |"
        for row in [header, rule, *rows]
    )


def _targets(results: Results, corpora: Sequence[Corpus]) -> str:
    """Return which targets are met: rates on every corpus, start-up and memory on small images."""
    lines = []
    for corpus in corpora:
        lines.append(
            f"  {corpus.name}: steady flow ≥ {_least_share(corpus)} × plain pool: {_throughput(results, corpus)}"
        )
        if corpus.name in SMALL:
            lines += [f"  {corpus.name} × {corpus.sizes[0]:,}: {line}" for line in _fixed_costs(results, corpus)]
    return "\n".join(["Targets", *lines])


def _least_share(corpus: Corpus) -> float:
    return 0.9 if corpus.name in SMALL else 0.95


def _fixed_costs(results: Results, corpus: Corpus) -> Iterator[str]:
    t = results.import_s.middle
    for contender, most in ((SERVED, 1.8), (COLD, 3.2)):
        beyond = results.beyond(contender, INDEPENDENT, corpus) / t
        yield f"{LABELS[contender]} - plain pool ≤ {most} T: {beyond:.2f} T {_verdict(beyond <= most)}"
    idle = results.wall(SERVED_NOOP, corpus).middle / t
    yield f"{LABELS[SERVED_NOOP]} ≤ 1.2 T: {idle:.2f} T {_verdict(idle <= 1.2)}"
    for contender, most in ((HELP, 0.3), (STATUS, 0.6)):
        seconds = results.wall(contender, corpus).middle
        yield f"{LABELS[contender]} ≤ {most} s: {seconds:.2f} s {_verdict(seconds <= most)}"
    for contender in (SERVED, COLD):
        peak = results.peak_mb(contender, corpus)
        if peak:
            yield f"{LABELS[contender]}: peak ≤ 600 MB: {peak:,.0f} MB {_verdict(peak <= 600)}"


def _throughput(results: Results, corpus: Corpus) -> str:
    share = results.share(SERVED, INDEPENDENT, corpus)
    span = results.span_share(SERVED, INDEPENDENT, corpus)
    if not share or not span or results.growth_s(INDEPENDENT, corpus) < LEAST_GROWTH_SECONDS:
        return "not measurable with so few images"
    return (
        f"{share.middle:.2f} ({share.low:.2f}–{share.high:.2f}; from the first finished image to the last "
        f"{span:.2f}) {_verdict(share.middle >= _least_share(corpus))}"
    )


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"
