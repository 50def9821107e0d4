"""Every mistake in a configuration is one sentence with the file, the key and the nearest valid name."""

from __future__ import annotations

import itertools
import json
import re
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from conftest import PENGUINS, UseCase
from pipeline.config import Config, load_config
from pipeline.config.features import NumericFeature
from pipeline.config.load import MOVED
from pipeline.config.presets import PRESETS
from pipeline.config.reference import reference
from pipeline.config.sections import Model, Training
from pipeline.runtime.errors import UserError


def test_penguins_are_the_lab_s_settings() -> None:
    config = load_config(PENGUINS)
    assert (config.training.epochs, config.training.batch_size, config.training.learning_rate) == (100, 20, 0.001)
    assert config.model.hidden_sizes == [10, 10]
    assert (config.split.test_fraction, config.split.oversample) == (0.15, 4)
    assert config.source_paths == [str(PENGUINS.parent / "penguins.csv")]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("training.epoch=5", "unknown key 'training.epoch'; did you mean 'epochs'?"),
        ("trainin.epochs=5", "unknown key 'trainin'; did you mean 'training'?"),
        ("features.numeric.0.scalin=none", "unknown key 'features.numeric.0.scalin'; did you mean 'scaling'?"),
        ("training.epochs=many", "training.epochs: must be a whole number of at least 1, or auto, not 'many'"),
        ("training.epochs=0", "training.epochs: must be a whole number of at least 1, or auto, not 0"),
        ("training.learning_rate=.nan", "training.learning_rate: input should be a finite number"),
        ("training.optimizer=adm", "training.optimizer: 'adm' is not one of adam, adamw, sgd; did you mean 'adam'?"),
        ("features.numeric.0.scaling=standrd", "did you mean 'standard'?"),
        ("tracking.gate.metric=acuracy", "tracking.gate.metric 'acuracy' is not a metric of a classification; did you"),
        ("tracking.gate.thresholds.rmse=1", "tracking.gate.thresholds 'rmse' is not a metric of a classification"),
        ("tracking.gate.min_improvement=-1", "tracking.gate.min_improvement: input should be greater than or equal to"),
        ("tracking.registered_model=a/b", "tracking.registered_model: "),
        ("run.num_proc=some", "run.num_proc: must be a whole number of at least 1, or auto, not 'some'"),
        ("run.num_proc=0", "run.num_proc: must be a whole number of at least 1, or auto, not 0"),
        ("source.options.Mode=DROPMALFORMED", "source: options.Mode cannot be set: source.bad_records decides that"),
        ("source.bad_records=skip", "source.bad_records: 'skip' is not one of quarantine, fail"),
        ("label.column=Island", "label.column 'Island' is also listed in features"),
        ("label.task=regression", "label: classes is for task: classification"),
        ("features.categorical.0.dim=3", "features.categorical.0: dim is for encoding: embedding"),
        ("features.numeric.1=CulmenLength", "features lists column 'CulmenLength' twice"),
        ("features={}", "features lists no column"),
        ("training.epochs=true", "training.epochs: must be a whole number of at least 1, or auto, not True"),
        ("run.num_proc=true", "run.num_proc: must be a whole number of at least 1, or auto, not True"),
        ("recovery.elastic={min: 3, max: 2}", "recovery.elastic: min 3 is more than max 2"),
        ("recovery.elastic={min: 1}", "recovery.elastic.max: is missing"),
        ("training.seed=-1", "training.seed: input should be greater than or equal to 0"),
        ("features.numeric.1=culmenlength", "twice"),
        ("label=null", "label: input should be a valid"),
    ],
)
def test_a_mistake_is_a_sentence_with_the_override_the_key_and_the_nearest_name(override: str, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        load_config(PENGUINS, [override])
    message = str(raised.value)
    assert message.startswith(f"--set {override}: ")
    assert sentence in message
    assert "\n" not in message


def test_num_proc_must_be_within_elastic() -> None:
    with pytest.raises(UserError, match=r"run\.num_proc 5 is not between the min and max of recovery\.elastic"):
        load_config(PENGUINS, ["run.num_proc=5", "recovery.elastic={min: 1, max: 4}"])


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_of_a_setting_is_refused_with_the_new_one(old: str, new: str, tmp_path: Path) -> None:
    section, _, key = old.rpartition(".")
    tree = yaml.safe_load(PENGUINS.read_text())
    (tree.setdefault(section, {}) if section else tree)[key] = 5
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=re.escape(f"{file}: {old} is now {new}: ")):
        load_config(file)
    with pytest.raises(UserError, match=re.escape(f"--set {old}=5: {old} is now {new}: ")):
        load_config(PENGUINS, [f"{old}=5"])


def test_a_part_of_a_setting_that_moved_is_refused_too() -> None:
    with pytest.raises(UserError, match=r"^--set run\.elastic\.min=1: run\.elastic is now recovery\.elastic"):
        load_config(PENGUINS, ["run.elastic.min=1"])


@pytest.mark.parametrize(
    "override",
    ["training", "training.epochs.deep=1", "features.numeric.9.scaling=none", "a=[unclosed", "=3", "a=2024-02-30"],
)
def test_a_malformed_override_is_quoted(override: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--set {override}: ")):
        load_config(PENGUINS, [override])


def test_overrides_reach_nested_keys_lists_and_missing_sections() -> None:
    overrides = [
        "training.epochs=5",
        "features.numeric.0.scaling=minmax",
        "tracking.run_name=x",
        "label.classes=[a, b]",
    ]
    config = load_config(PENGUINS, overrides)
    assert config.training.epochs == 5
    assert config.features.numeric[0].scaling == "minmax"
    assert config.tracking.run_name == "x"
    assert config.label.classes == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read: No such file or directory"),
        ("a: [1", "is not valid YAML"),
        ("just words", "must hold a mapping with the keys source, features, label"),
        ("", "must hold a mapping"),
        ("source: {path: x.csv, schema: a INT}", "features: is missing (and 1 more mistake)"),
        (
            "source: {path: [], schema: a INT}\nfeatures: {numeric: [a]}\nlabel: {column: y}",
            "source.path: value should have at least 1",
        ),
    ],
)
def test_an_unreadable_file_is_one_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    file = tmp_path / "p.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_config(file)


# YAML as people write it, and as nobody would
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("../../../etc/passwd"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [line.split("`")[1].replace("[]", ".0") for line in reference()]


def test_a_quoted_true_or_false_of_an_option_is_what_it_says(use_case: UseCase) -> None:
    options = {"header": "false", "multiLine": "True", "nullValue": "false"}
    source = use_case(source={"path": "data.csv", "schema": "a DOUBLE, k STRING, y INT", "options": options}).source
    assert (source.reader_options["header"], source.reader_options["multiline"]) == (False, True)
    assert source.null_value == "false"


@given(st.dictionaries(st.sampled_from(KEYS), anything, max_size=4))
def test_any_override_gives_a_configuration_or_one_sentence(values: dict[str, Any]) -> None:
    sentence = ""
    try:
        config = load_config(PENGUINS, [f"{key}={json.dumps(value)}" for key, value in values.items()])
        again = Config.model_validate(yaml.safe_load(config.to_yaml()))
        assert again.model_dump() == config.model_dump()
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert len(sentence) < 1000


@example(b"? '\n\n'")
@given(st.binary(max_size=200) | anything.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode()))
def test_a_file_with_random_content_is_one_sentence(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_bytes(content)
        with pytest.raises(UserError) as raised:
            load_config(file)
    assert "\n" not in str(raised.value)


QUOTE = "YAML reads {} without quotes as {}: quote it ('{}') if it is a text"


@pytest.mark.parametrize(
    ("setting", "written", "read"),
    [
        ("label.classes=[01234, x]", "01234", "668"),
        ("label.classes=[x, 02115]", "02115", "1101"),
        ("label.classes=[Yes, x]", "Yes", "true"),
        ("label.classes=[x, No]", "No", "false"),
        ("label.classes=[1_000, x]", "1_000", "1000"),
        ("label.classes=[12:30, x]", "12:30", "750"),
        ("label.classes=[1.50, x]", "1.50", "1.5"),
        ("label.classes=[null, x]", "null", "null"),
        ("label.classes=[~, x]", "~", "null"),
        ("features.categorical.0.values=[0x1F, 7]", "0x1F", "31"),
        ("features.numeric.0.column=on", "on", "true"),
        ("features.numeric=[off]", "off", "false"),
        ("label.column=null", "null", "null"),
        ("source.path=[2024_01]", "2024_01", "202401"),
        ("tracking.run_name=1.10", "1.10", "1.1"),
    ],
)
def test_yaml_does_not_change_a_text(setting: str, written: str, read: str, tmp_path: Path) -> None:
    key, _, value = setting.partition("=")
    sentence = re.escape(QUOTE.format(written, read, written))
    with pytest.raises(UserError, match=rf"^--set .*{re.escape(key.split('.')[-1])}: {sentence}$"):
        load_config(PENGUINS, [setting])
    # quoted it is a text, here and in a file
    quoted = value.replace(written, f"'{written}'")
    config = load_config(PENGUINS, [f"{key}={quoted}"])
    assert f"'{written}'" in config.to_yaml() or written in config.to_yaml()
    if key == "label.classes":
        overlay = tmp_path / "overlay.yaml"
        overlay.write_text(f"label:\n  classes: {value}\n")
        with pytest.raises(UserError, match=rf"^{re.escape(str(overlay))}: label\.classes: {sentence}$"):
            load_config([PENGUINS, overlay])
        assert written in (config.label.classes or [])


@pytest.mark.parametrize("value", ["0", "7", "-3", "1.5", "2024-01-02", "1e3", "1e400", "True", "Adelie", "'0x1F'"])
def test_what_yaml_does_not_change_needs_no_quotes(value: str, tmp_path: Path) -> None:
    config = load_config(PENGUINS, [f"label.classes=[{value}, x]", f"features.categorical.0.values=[{value}]"])
    assert (config.label.classes or [])[0] == value.strip("'")
    assert config.features.categorical[0].values == [value.strip("'")]
    copy = tmp_path / "pipeline.yaml"
    copy.write_text(config.to_yaml())
    assert load_config(copy).model_dump() == config.model_dump()


def test_columns_keys_and_sections_may_look_like_other_things(tmp_path: Path) -> None:
    config = load_config(PENGUINS, ["features.numeric=[2020, 2021]", "source.path=2024"])
    assert config.features.numeric[1].column == "2021"
    assert config.source.path == ["2024"]
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("run:\ntraining: {on: 3}\n")
    with pytest.raises(UserError, match=r"unknown key 'training\.on'"):
        load_config([PENGUINS, overlay])
    overlay.write_text("source:\n  options:\n")
    config = load_config([PENGUINS, overlay], ["source.options.header=false", "source.options.sep=;"])
    assert config.source.options == {"header": False, "sep": ";"}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no", "YAML reads no without quotes as false: quote it ('no') if it is a text, else write false"),
        ("007", "YAML reads 007 without quotes as 7: quote it ('007') if it is a text, else write 7"),
    ],
)
def test_an_option_of_spark_is_what_was_written(value: str, problem: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"source.options: nullValue: {problem}")):
        load_config(PENGUINS, [f"source.options.nullValue={value}"])
    for written, read in ((f"'{value}'", value), ("true", True), ("FALSE", False), ("12", 12), ("1.5", 1.5)):
        assert load_config(PENGUINS, [f"source.options.nullValue={written}"]).source.options == {"nullValue": read}


def test_a_later_file_overlays_the_ones_before_it(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("tracking: {uri: databricks, gate: {min_improvement: 0.01}}\nlabel: {classes: [a, b]}\n")
    config = load_config([PENGUINS, overlay, "{tracking: {uri: here}}"], ["training.epochs=3"])
    # mappings merge, lists and plain values replace, --set comes last
    assert (config.tracking.uri, config.tracking.registered_model) == ("here", "penguins")
    assert (config.tracking.gate.min_improvement, config.tracking.gate.thresholds) == (0.01, {"accuracy": 0.9})
    assert config.label.classes == ["a", "b"]
    assert config.training.epochs == 3
    # the first file names the use case
    assert config.folder == PENGUINS.parent
    # a mistake that shows later names the last that states the setting
    for key, origin in {
        "source.path": PENGUINS,
        "label.classes": overlay,
        "tracking.uri": "the overlay given as --config number 3",
        "training.epochs": "--set training.epochs=3",
        "run.work_dir": PENGUINS,
    }.items():
        assert str(config.mistake(key, "is wrong")) == f"{origin}: {key}: is wrong"


def test_a_configuration_behind_links_has_the_folder_that_the_user_names(tmp_path: Path) -> None:
    mounted = tmp_path / "churn" / "..2026_11_25.1"  # as Kubernetes mounts a ConfigMap
    mounted.mkdir(parents=True)
    (mounted / "pipeline.yaml").write_bytes(PENGUINS.read_bytes())
    (mounted / "features.sql").write_text("SELECT 1")
    (tmp_path / "churn" / "..data").symlink_to(mounted.name)
    for name in ("pipeline.yaml", "features.sql"):
        (tmp_path / "churn" / name).symlink_to(f"..data/{name}")
    config = load_config(tmp_path / "churn" / "pipeline.yaml")
    assert config.folder == tmp_path / "churn"
    assert config.features_sql == "SELECT 1"


def test_a_mistake_names_the_file_that_holds_it(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    for text, mistake in {
        "training: {epoch: 5}": f"{overlay}: unknown key 'training.epoch'; did you mean 'epochs'?",
        "training: {epochs: 0}": f"{overlay}: training.epochs: must be a whole number of at least 1, or auto, not 0",
        "run: {max_restarts: 0}": f"{overlay}: run.max_restarts is now recovery.max_restarts: ",
        "- 1": f"{overlay}: must hold a mapping with the keys ",
    }.items():
        overlay.write_text(text)
        with pytest.raises(UserError, match=f"^{re.escape(mistake)}"):
            load_config([PENGUINS, overlay])
    overlay.write_text("training: {epochs: 5}")
    with pytest.raises(UserError, match=r"^the overlay given as --config number 3: model\.dropout: "):
        load_config([PENGUINS, overlay, "{model: {dropout: 2}}"])
    with pytest.raises(UserError, match=r"^the overlay given as --config number 2: is not valid YAML: "):
        load_config([PENGUINS, "{model: "])
    with pytest.raises(UserError, match=r"^--config: must begin with a file"):
        load_config(["{label: {column: y}}", PENGUINS])


@pytest.mark.parametrize(
    ("overrides", "mistake"),
    [
        (["model.dropout=2"], "--set model.dropout=2: model.dropout: input should be less than 1"),
        (["training.epochs=5", "training.epochs=x"], "--set training.epochs=x: training.epochs: "),
        (["training.epochs=x", "run.num_proc=2"], "--set training.epochs=x: training.epochs: "),
        (["run.num_proc=x"], "--set run.num_proc=x: run.num_proc: must be a whole number"),
        (["features.numeric.0.scaling=log"], "--set features.numeric.0.scaling=log: features.numeric.0.scaling: "),
        (["label={task: regression}"], "--set label={task: regression}: label.column: is missing"),
        (["recovery.elastic={min: 3, max: 1}"], "--set recovery.elastic={min: 3, max: 1}: recovery.elastic: min 3"),
        (["training.epoch=5"], "--set training.epoch=5: unknown key 'training.epoch'"),
        ([f"training.epochs={'x' * 200}"], f"--set training.epochs={'x' * 57}…: training.epochs: "),
    ],
)
def test_a_mistake_in_an_override_names_it(overrides: list[str], mistake: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(mistake)}"):
        load_config(PENGUINS, overrides)


def test_a_setting_that_an_anchor_shares_is_overridden_alone(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "source: {path: x.csv, schema: a INT, options: {sep: ;}}\nlabel: {column: y}\n"
        "features: {numeric: [&a {column: a}], categorical: [*a]}\n"
    )
    config = load_config(file, ["features.categorical.0.column=b"])
    assert config.feature_columns == ["a", "b"]


def test_a_missing_features_sql_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("source: {path: x.csv, schema: a INT}\nfeatures: {numeric: [a], sql: f.sql}\nlabel: {column: y}")
    with pytest.raises(UserError, match=r"features\.sql: cannot read .*f\.sql: No such file"):
        _ = load_config(file).features_sql


def test_resolved_yaml_loads_to_the_same_settings(tmp_path: Path) -> None:
    config = load_config(PENGUINS, ["training.epochs=7"])
    copy = tmp_path / "pipeline.yaml"
    copy.write_text(config.to_yaml())
    assert load_config(copy).model_dump() == config.model_dump()


def test_a_list_of_billions_made_by_anchors_is_one_short_sentence(tmp_path: Path) -> None:
    levels = [f"    {b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefghijkl")]
    bomb = ["source:", "  schema: a INT", "  options:", "    a: &a [lol, lol, lol]", *levels, "  path: *l"]
    (tmp_path / "pipeline.yaml").write_text("\n".join([*bomb, "features: {numeric: [a]}", "label: {column: a}"]))
    with pytest.raises(UserError, match=r"source\.path\.0: input should be a valid string") as raised:
        load_config(tmp_path / "pipeline.yaml")
    assert len(str(raised.value)) < 1000


def test_a_preset_fills_what_a_use_case_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "features.sql").write_text("SELECT 1")
    plain = "source: {path: x, schema: a INT}\nlabel: {column: y}\n"
    (tmp_path / "pipeline.yaml").write_text(plain + "features: {numeric: [a, {column: b, scaling: none}, 2024]}\n")
    config = load_config(tmp_path / "pipeline.yaml")
    assert [(f.column, f.scaling) for f in config.features.numeric] == [
        ("a", "quantile"),
        ("b", "none"),
        ("2024", "quantile"),
    ]
    assert (config.model.preset, config.model.numeric_embedding, config.training.epochs) == (
        "default",
        "periodic",
        "auto",
    )
    some = load_config(tmp_path / "pipeline.yaml", ["training.epochs=7", "training.early_stopping.patience=2"])
    assert (some.training.epochs, some.training.schedule, some.training.early_stopping.patience) == (7, "plateau", 2)
    delta = load_config(tmp_path / "pipeline.yaml", ["training.early_stopping.min_delta=0.1"]).training.early_stopping
    assert (delta.patience, delta.min_delta) == (16, 0.1)
    other = load_config(tmp_path / "pipeline.yaml", ["training.optimizer=adam"]).training
    assert (other.weight_decay, other.learning_rate, other.schedule) == (0.0, 0.001, "plateau")
    none = load_config(tmp_path / "pipeline.yaml", ["model.preset=none"])
    assert none.model.model_dump(exclude={"preset"}) == Model().model_dump(exclude={"preset"})
    assert none.training == Training()
    assert none.features.numeric[0] == NumericFeature(column="a")
    with pytest.raises(UserError, match=r"model\.preset"):
        load_config(tmp_path / "pipeline.yaml", ["model.preset=best"])
    # a packaged model states every setting, so that no preset of later days changes what it means
    (tmp_path / "whole.yaml").write_text(none.to_yaml())
    assert load_config(tmp_path / "whole.yaml").model_dump() == none.model_dump()


def test_every_preset_has_a_name_in_the_settings_and_real_settings() -> None:
    assert set(PRESETS) == set(get_args(Model.model_fields["preset"].annotation))
    kinds: dict[str, type[BaseModel]] = {"features.numeric": NumericFeature, "model": Model, "training": Training}
    for preset in PRESETS.values():
        for section, values in preset.items():
            assert set(values) <= set(kinds[section].model_fields)
