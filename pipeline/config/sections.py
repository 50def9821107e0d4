"""The sections of a use case's settings, each with what it checks by itself.

The docstring under each field documents it; ``python -m pipeline.config`` prints them all as a table.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.config.base import Settings
from pipeline.runtime import storage
from pipeline.runtime.errors import nearest

DEFAULT_WORK_DIR = ".work"
"""Below the folder in which a job is started."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


OPTIONS = (
    "header", "sep", "delimiter", "quote", "escape", "charToEscapeQuoteEscaping", "comment", "encoding", "charset",
    "multiLine", "lineSep", "enforceSchema", "maxColumns", "maxCharsPerColumn", "unescapedQuoteHandling",
    "recursiveFileLookup", "pathGlobFilter", "modifiedBefore", "modifiedAfter", "nullValue", "dateFormat",
    "timestampFormat",
)  # fmt: skip
"""The options of Spark's CSV reader that are honoured: how a file becomes texts, and three that texts are read by."""

_ONE_RULE = "one rule reads every text, in files and online; conf/README.md, 'What a text means', has it"
_REFUSED_OPTIONS = {
    "mode": "source.bad_records decides that",
    "columnnameofcorruptrecord": "source.bad_records decides that",
    "inferschema": "source.schema decides that",
    "ignoreleadingwhitespace": "a number may have blanks around it anyway; for text, write trim(…) in features.sql",
    "ignoretrailingwhitespace": "a number may have blanks around it anyway; for text, write trim(…) in features.sql",
    "emptyvalue": "an empty text, quoted or not, is a missing value",
    "locale": "numbers and dates are written as in English; convert others in features.sql",
    **dict.fromkeys(("nanvalue", "positiveinf", "negativeinf", "timestampntzformat", "preferdate"), _ONE_RULE),
    "enabledatetimeparsingfallback": _ONE_RULE,
}


class Source(Settings):
    """Where the rows come from and what they look like."""

    path: Annotated[list[str], BeforeValidator(_as_list), Field(min_length=1)]
    """CSV file, folder or glob (`.gz` too), or a list of them; relative paths start at the config's folder."""
    schema_: str = Field(alias="schema", min_length=1)
    """The columns of the CSV in order, as Spark DDL: `Island STRING, BodyMass DOUBLE`."""
    options: dict[str, str | bool | int | float] = Field(default={})
    """Options of Spark's CSV reader (`sep`, `encoding`, `nullValue`, …); `header: true` unless given."""
    bad_records: Literal["quarantine", "fail"] = "quarantine"
    """What to do with records that do not fit the schema: set them aside and go on, or stop (exit 2)."""
    max_quarantined: float = Field(default=0.05, ge=0, le=1)
    """The largest share of the records that may be set aside; with more, the job stops (exit 2)."""
    max_dropped: float = Field(default=0.05, ge=0, le=1)
    """The largest share of the rest that may be dropped for a missing value; with more, the job stops (exit 2)."""
    min_rows: int = Field(default=1, ge=1)
    """The fewest rows that a source must hold to be trained on; with fewer, the job stops (exit 2)."""

    @model_validator(mode="after")
    def _some_options_are_ours(self) -> Source:
        for option in self.options:
            if reason := _REFUSED_OPTIONS.get(option.lower()):
                raise ValueError(f"options.{option} cannot be set: {reason}")
            if option.lower() not in {known.lower() for known in OPTIONS}:
                raise ValueError(f"options.{option} is not an option that is honoured{nearest(option, OPTIONS)}")
        return self

    @property
    def null_value(self) -> str:
        """The text of a field that has no value, beside the empty one, as `nullValue` says."""
        value = self.reader_options.get("nullvalue", "")
        return str(value).lower() if isinstance(value, bool) else str(value)

    @property
    def reader_options(self) -> dict[str, str | bool | int | float]:
        """Options for Spark's CSV reader, in lower case (Spark does not care), defaults included.

        RFC 4180 doubles a quote inside quotes; Spark's own default is a backslash. Spark compares a file's header with
        the schema only if `enforceSchema` is false. Without `multiLine` it looks for the byte of a line's end, which
        is half of a character in encodings of two or four bytes.
        """
        given = {option.lower(): value for option, value in self.options.items()}
        for option in ("header", "enforceschema", "multiline"):
            if str(given.get(option)).lower() in ("true", "false"):
                given[option] = str(given[option]).lower() == "true"
        encoding = str(given.get("encoding", given.get("charset", ""))).lower().replace("-", "").replace("_", "")
        wide = {"multiline": True} if encoding.startswith(("utf16", "utf32", "ucs2")) else {}
        return {"header": True, "escape": '"', "enforceschema": False, **wide, **given}


class Split(Settings):
    """Which rows the network learns from, which choose among its epochs, and which measure the result."""

    validation_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Share of the rows that choose the epoch. Identical rows are in the same split, unless group, time or column
    decide."""
    test_fraction: float = Field(default=0.15, ge=0, lt=1)
    """Share of the rows that measure the kept weights after the last epoch, for report, thresholds and gate. With 0
    the validation rows measure, and the gate promotes nothing."""
    group: Annotated[list[str], BeforeValidator(_as_list)] = Field(default=[])
    """Columns of the CSV: all rows with the same values are in the same split, such as all visits of a patient."""
    time: str | None = None
    """Column of the CSV, a number, DATE or TIMESTAMP: the latest rows are test, those before them validation. Rows of
    equal time are in the same split."""
    column: str | None = None
    """Column of the CSV that holds `train`, `validation` or `test`, which replaces the fractions."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Another seed, another split."""
    oversample: int = Field(default=1, ge=1)
    """How often each training row is in the data; others once."""

    @model_validator(mode="after")
    def _ways_exclude_each_other(self) -> Split:
        ways = [name for name in ("group", "time", "column") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} exclude each other: take one of them")
        if self.validation_fraction + self.test_fraction >= 1:
            shares = f"validation_fraction {self.validation_fraction} and test_fraction {self.test_fraction}"
            raise ValueError(f"{shares} leave no row to train on: their sum must be below 1")
        return self

    @property
    def needed_columns(self) -> list[str]:
        """The columns of the CSV without which a row has no split."""
        return [*self.group, *([self.time] if self.time else [])]


class Model(Settings):
    """The network: fully connected layers with ReLU between them."""

    preset: Literal["default", "strong", "none"] = "default"
    """Settings that you leave out: `default` or `strong`, see [Presets](#presets), or `none`, which is as this table
    says."""
    hidden_sizes: list[Annotated[int, Field(ge=1)]] = Field(default=[64, 64])
    """Width of each hidden layer; an empty list makes a model that is linear in what the first layer takes."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of hidden activations dropped in training."""
    members: int = Field(default=1, ge=1, le=256)
    """So many networks in one, which share most of their weights and answer with their mean (TabM, Gorishniy et al.
    2025): better on many tables, and about as many times the work."""
    numeric_embedding: Literal["none", "periodic"] = "none"
    """`periodic`: beside each number the network takes learned sines and cosines of it (Gorishniy et al. 2022), which
    help where the answer does not change smoothly."""
    frequencies: int = Field(default=24, ge=1)
    """Of the periodic embedding: how many sines and cosines of each number."""
    frequency_scale: float = Field(default=0.1, gt=0)
    """Of the periodic embedding: the standard deviation of the frequencies before the first step."""
    embedding_size: int = Field(default=12, ge=1)
    """Of the periodic embedding: inputs of the first layer that each number becomes, beside the number itself."""


class EarlyStopping(Settings):
    """When to stop before the last epoch."""

    patience: int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a lower validation loss; null: never."""
    min_delta: float = Field(default=0.0, ge=0)
    """How much lower the validation loss must be to count as lower."""


class Training(Settings):
    """How the network learns."""

    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(default=20, union_mode="left_to_right")
    """Passes over the training rows; `auto`: by the numbers of rows and columns, at most 200."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(default=32, union_mode="left_to_right")
    """Rows per step and rank; the global batch is this times the number of ranks. `auto`: a global batch of 64 to 512
    rows by the number of training rows, and up to 8192 of more than a million; lr_scaling then does not count."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """torch.optim's Adam, AdamW, or SGD with momentum 0.9."""
    learning_rate: float = Field(default=0.001, gt=0)
    """For one rank; see lr_scaling."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "linear"
    """Multiply the learning rate by 1, by the number of ranks (Goyal et al. 2017), or by its square root."""
    warmup_epochs: float = Field(default=0, ge=0)
    """Epochs over which the learning rate rises linearly, step by step, from its 1-rank value (on one rank, from 0)."""
    schedule: Literal["constant", "plateau", "cosine", "one_cycle"] = "constant"
    """Of the learning rate. `plateau` multiplies it by 0.3 after every 8 epochs without a lower validation loss.
    `cosine` lets it fall to 0 until the last epoch, `one_cycle` lets it rise first (Smith and Topin 2018)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """The optimizer's weight_decay; with `adamw` biases and learned vectors do not decay."""
    gradient_clipping: float | None = Field(default=None, gt=0)
    """The largest length of a step's gradient over all weights; a longer one is shortened. null: any length."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of a class label that is spread over all classes; it makes probabilities less sure. The training loss of an
    epoch then counts it, the validation loss does not."""
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = Field(
        default="none", union_mode="left_to_right"
    )
    """How much a row of each class weighs in the loss: `balanced` makes the classes weigh the same, as scikit-learn
    does, or a weight by class, such as `{yes: 5}`; the others weigh 1. The probabilities of a class that weighs more
    come out higher than its share."""
    early_stopping: EarlyStopping = EarlyStopping()
    """When to stop before the last epoch."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs between checkpoints, from which an interrupted training goes on."""
    checkpoint_keep: int = Field(default=2, ge=1)
    """How many of the newest checkpoints are kept."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seeds the first weights, the order of the rows and dropout."""


class Evaluation(Settings):
    """How the kept weights are measured."""

    baselines: list[Literal["constant", "linear", "trees"]] = Field(default=["constant", "linear", "trees"])
    """What the report shows beside the network on the same rows: the constant answer, a linear model, boosted trees
    (scikit-learn's, untuned); `[]`: nothing."""
    importance_repeats: int = Field(default=5, ge=0)
    """How often each feature is shuffled to measure its importance; 0: it is not measured."""
    temperature: bool = True
    """Fit on the validation rows by how much a classifier's outputs are divided, so that its probabilities are as sure
    as its answers are right; the model keeps the number."""


class Elastic(Settings):
    """Between how many ranks a training goes on while executors come and go."""

    min: int = Field(ge=1)
    """With fewer ranks than this, training waits for more."""
    max: int = Field(ge=1)
    """Training never has more ranks than this; the data are prepared for this number."""

    @model_validator(mode="after")
    def _min_is_not_more_than_max(self) -> Elastic:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


class Run(Settings):
    """Where and how wide the job runs."""

    num_proc: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(default="auto", union_mode="left_to_right")
    """Ranks; `auto`: one per executor, on `local[N]` N."""
    work_dir: str = DEFAULT_WORK_DIR
    """Everything the job writes locally is under this folder; relative to where the job is started."""
    data_dir: str | None = None
    """Where prepared data go: a path, or `s3a://`, `abfss://`, `hdfs://`, `dbfs:/`; default: `data` in work_dir."""
    keep_data: int | None = Field(default=None, ge=1)
    """How many of its newest prepared data sets a use case keeps; older ones go once they are unused; null: all."""
    ranks_per_executor: int = Field(default=1, ge=1)
    """On a cluster: ranks that may share an executor; they share its cores."""
    network_interfaces: list[str] | None = None
    """Network interfaces that the ranks may use, by name (`[eth0]`); default: Horovod finds the ones that work."""
    start_timeout_s: int = Field(default=600, ge=1)
    """Seconds to wait for the executors, and then for Spark to give every rank its slot."""
    cache: Literal["auto", "memory", "stream"] = "auto"
    """Ranks keep their rows in `memory`, or read them in every epoch: `stream`. `auto`: what fits in half of its share
    of the executor's memory is kept."""

    @field_validator("work_dir", "data_dir")
    @classmethod
    def _is_a_folder_that_can_be_used(cls, path: str | None, info: ValidationInfo) -> str | None:
        return path if path is None else storage.check(path, local=info.field_name == "work_dir")


class Recovery(Settings):
    """What happens when a rank is lost while a training runs."""

    stall_timeout_s: int = Field(default=600, ge=5)
    """Seconds after which a rank that keeps the others waiting counts as lost."""
    max_restarts: int = Field(default=3, ge=0)
    """How often all ranks start again, from the newest checkpoint, when one of them is lost."""
    elastic: Elastic | None = None
    """With `{min: 1, max: 4}` ranks come and go while a training runs; with null all start again when one is lost."""
