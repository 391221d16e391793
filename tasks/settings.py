"""The settings: recipe, rules and compute, as pydantic models.

They are the validation, the form in the Prefect UI, and the documentation at once.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from darkroom.tasks.errors import InvalidSettingError
from darkroom.tasks.patterns import DEFAULT_EXCLUDE, compile_patterns
from darkroom.tasks.wording import describe_invalid

KERNEL_VERSION = 4
"""Raise this with every change to `darkroom.tasks.imaging` that changes the bytes of any output."""

CODEC_LIBRARIES = ("opencv-python-headless", "pillow", "simplejpeg")

MAX_SECONDS = 1e6
"""Upper limit on time limits: the system's calls take no infinite ones."""

SYNONYMS = {"jpg": "jpeg", "grey": "gray"}


def _canonical(value: Any) -> Any:
    """Return a choice in its standard spelling: `JPG` as `jpeg`."""
    return SYNONYMS.get(value.lower(), value.lower()) if isinstance(value, str) else value


AnySpelling = BeforeValidator(_canonical)

Fit = Annotated[Literal["fill", "cover", "contain", "inside", "outside"], AnySpelling]
Filter = Annotated[Literal["auto", "nearest", "area", "linear", "cubic", "lanczos"], AnySpelling]
Format = Annotated[Literal["jpeg", "png", "webp"], AnySpelling]
Color = Annotated[Literal["rgb", "gray"], AnySpelling]
JpegDecoding = Annotated[Literal["fast", "balanced", "full"], AnySpelling]
Damage = Annotated[Literal["strict", "tolerant"], AnySpelling]
DetectChanges = Annotated[Literal["mtime", "ctime", "content"], AnySpelling]
HexColor = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$", examples=["#ffffff"])]


class Settings(BaseModel):
    """Frozen, and strict about names: a misspelt setting is refused, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise InvalidSettingError(describe_invalid(cls, error)) from error


class Recipe(Settings):
    """What happens to the pixels of every image. A destination holds the outputs of one recipe."""

    width: int = Field(600, ge=1, le=16383, description="Target width in pixels.")
    height: int = Field(600, ge=1, le=16383, description="Target height in pixels.")
    fit: Fit = Field(
        "fill",
        description="fill: stretch to exactly width × height. cover: keep the aspect ratio, fill the box, "
        "crop the middle. contain: keep the aspect ratio, fit in the box, pad with the background. "
        "inside: keep the aspect ratio, as large as fits in the box. outside: keep the aspect ratio, as "
        "small as covers the box.",
    )
    upscale: bool = Field(True, description="Enlarge images that are smaller than the target.")
    filter: Filter = Field(
        "auto",
        description="Resampling filter, antialiased when shrinking (except nearest). auto: area when "
        "shrinking, linear when enlarging.",
    )
    format: Format = Field("jpeg", description="Format of the outputs.")
    quality: int = Field(90, ge=1, le=100, description="Quality of JPEG and WebP outputs.")
    background: HexColor = Field(
        "#ffffff", description="Colour behind transparent pixels in JPEG outputs and around contained images."
    )
    color: Color = Field("rgb", description="rgb: three channels (four with alpha in PNG and WebP). gray: one.")
    jpeg_decoding: JpegDecoding = Field(
        "balanced",
        description="Scale at which large JPEGs are decoded before they are resampled; 1/2, 1/4 and 1/8 take less time "
        "and lose detail. fast: the smallest that has the output's size. balanced: the smallest that has twice its "
        "size. full: always the whole picture. For 117 photos to 600 pixels, SSIM to full decoding (worst, median) and "
        "CPU time each: fast 0.944, 0.993, 26 ms; balanced 0.985, 0.9993, 36 ms; full 1, 1, 57 ms.",
    )
    damage: Damage = Field(
        "strict",
        description="strict: an image of which pixels are missing or damaged is a failure. tolerant: everything that "
        "can be shown of it is used, with the warning truncated or corrupt in the manifest.",
    )

    @model_validator(mode="before")
    @classmethod
    def _rename_truncated(cls, values: Any) -> Any:
        # The name of `damage` in manifests and jobs of earlier versions.
        if isinstance(values, dict) and (old := values.get("truncated")) in ("fail", "keep"):
            others = {name: value for name, value in values.items() if name != "truncated"}
            return others | {"damage": "tolerant" if old == "keep" else "strict"}
        return values

    @property
    def background_rgb(self) -> tuple[int, int, int]:
        """The background as red, green, blue in 0..255."""
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue

    @property
    def recipe_id(self) -> str:
        """Hash of the recipe, the kernel version and the versions of the codec libraries."""
        text = json.dumps([self.model_dump(mode="json"), pixel_versions()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def pixel_versions() -> dict[str, str]:
    """Return the versions of everything that may change output bytes."""
    return {"kernel": str(KERNEL_VERSION)} | {name: version(name) for name in CODEC_LIBRARIES}


class Rules(Settings):
    """Which images a run processes, and when it stops."""

    force: bool = Field(False, description="Process every image again, changed or not.")
    detect_changes: DetectChanges = Field(
        "ctime",
        description="What makes an image be read again. mtime: another size or modification time. ctime: also another "
        "change time, which no program can set back; renames, links and permissions change it too. content: every "
        "image is read. If its bytes are the same, nothing is made again.",
    )
    retry_failed: bool = Field(
        False, description="Try every image again that failed before, also where its bytes have not changed."
    )
    rebuild: bool = Field(False, description="Let this recipe replace another one: every image is processed again.")
    follow_symlinks: bool = Field(
        False, description="Follow symbolic links that lead outside the source, and linked folders."
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Preview: process only this many images, the first of the listing, on this machine and in a "
        "temporary destination, and show what comes out. Nothing is published.",
    )
    include: list[str] = Field(
        [],
        description="List only images that match one of these patterns, as .gitignore has them, or lie in a folder "
        "that does: *.png, /train/, cats/**/*.jpg.",
    )
    exclude: list[str] = Field(
        [],
        description="Leave out files and folders that match one of these patterns, as .gitignore has them. A pattern "
        "that begins with ! takes back an earlier one, such as one of these, which always come first: "
        f"{' '.join(DEFAULT_EXCLUDE)}.",
    )
    by_content: bool = Field(
        False,
        description="Look at the first bytes of every file whose suffix is no image's, and list those that are images. "
        "Without it, only the suffix counts.",
    )
    tar_members: bool = Field(
        False,
        description="List the images in tar archives (.tar), as the shards of WebDataset, by archive/path; labels and "
        "captions beside them become columns of the manifest.",
    )
    path_column: str | None = Field(
        None, description="The column of paths or URLs of a list of images, if it has an unusual name."
    )
    sync_outputs: bool = Field(
        True,
        description="Wait until outputs are on the disk before they count as finished, so that a power loss costs no "
        "output that counted as finished.",
    )
    max_pixels: int = Field(
        250_000_000, ge=1, description="Images of more pixels (width × height) are refused before decoding."
    )
    max_source_bytes: int = Field(
        1 << 30, ge=1, description="Files of more bytes are refused before they are read: an image is held in memory."
    )
    max_image_seconds: float = Field(
        60,
        ge=1,
        le=MAX_SECONDS,
        description="Give up an image that takes more processor time than this for each 25 megapixels or part of them.",
    )
    max_read_seconds: float = Field(
        120.0,
        gt=0,
        le=MAX_SECONDS,
        description="Give up a file, or a batch of small ones, that takes longer to read; the next run tries it again.",
    )
    max_delete_ratio: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Stop before anything is touched if more than this part of the known images is gone "
        "from the source. 1 allows any number of deletions, but never an empty source.",
    )
    max_failure_ratio: float = Field(
        0.1,
        ge=0,
        le=1,
        description="End as Failed, with the manifest published, if more than this part of the attempted images "
        "failed, or if the images that failed again, as in an earlier run, are more than this part of the known ones. "
        "1 allows any number, and also lets a run go on whose first 200 images all fail.",
    )

    @field_validator("include", "exclude")
    @classmethod
    def _can_match(cls, patterns: list[str]) -> list[str]:
        compile_patterns(patterns)
        return patterns


class Compute(Settings):
    """Where the work is done: by default on one process per core of this machine."""

    workers: int | None = Field(
        None, ge=1, description="Worker processes of the local cluster; one per core if not given."
    )
    scheduler: str | None = Field(
        None,
        pattern=r"^([a-z+]+://.+)?$",
        examples=["tcp://host:8786"],
        description="Address of the scheduler of an existing Dask cluster, such as tcp://host:8786; empty for none.",
    )
    cluster_class: str | None = Field(
        None, description="Any other Dask cluster class, such as dask_kubernetes.operator.KubeCluster."
    )
    cluster_kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments of the cluster class.")
    adapt_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments of the cluster's `adapt`, such as minimum and maximum: workers come and go.",
    )
    dashboard: bool = Field(
        False,
        description="Serve Dask's dashboard of the local cluster on this machine; the run's log has its address. It "
        "takes a second more to start.",
    )

    @model_validator(mode="after")
    def _one_cluster(self) -> Self:
        if self.scheduler and self.model_copy(update={"scheduler": None}) != Compute():
            raise InvalidSettingError(
                "`scheduler` names a cluster that exists already: leave out `workers`, `cluster_class`, "
                "`cluster_kwargs`, `adapt_kwargs` and `dashboard`, or leave out `scheduler`."
            )
        if self.adapt_kwargs and not self.cluster_class:
            raise InvalidSettingError("`adapt_kwargs` are for clusters of a `cluster_class`: give that, too.")
        return self


class Job(Settings):
    """The parameters of one run, which its workers read."""

    run_id: str
    source: str
    destination: str
    recipe: Recipe
    recipe_id: str
    rules: Rules
    run_file: str = Field(description="Name of the file below runs/ that the run will leave.")
    started_at: datetime = Field(default_factory=lambda: datetime.now(UTC), description="When the run began, UTC.")
