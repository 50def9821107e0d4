"""The pages fit the code: links, commands, settings, paths and the table of files.

COMMANDS holds every shell command of every page, with the test that runs it or the reason why no test does.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
from argparse import ArgumentParser
from pathlib import Path

import pytest

from conftest import PENGUINS, ROOT
from pipeline.config import load_config
from pipeline.config.reference import presets, reference, table
from pipeline.model.dialect import reference as dialect

PAGES = sorted(
    page.relative_to(ROOT)
    for page in (ROOT / "README.md", *(p for f in ("conf", "pipeline", "tests") for p in (ROOT / f).rglob("*.md")))
    if page.name in ("README.md", "CHANGES.md")
)
PROGRAMS = ("make", "python", "spark-submit", "cp", "source", "cd", "curl", "databricks", "export", "git", "docker")
"""What a code span must begin with, and be more than, to count as a command."""

HERE = "tests/unit/test_pages.py::test_a_cheap_command_runs"
DRY = "tests/unit/test_pages.py::test_an_expensive_target_of_make_exists"
TRAIN = "tests/horovod/test_train_job.py::"
SERVE = "tests/horovod/test_serving.py::"
CLUSTER = "tests/cluster/test_standalone.py::test_the_command_of_the_page_gives_the_same_bytes_as_local_mode"
GATE = TRAIN + "test_a_second_run_gives_the_same_bytes_and_reports_that_it_reuses_the_data"
OVERRULE = "tests/spark/test_gate.py::test_a_person_overrules_the_gate"
PREDICT = "tests/horovod/test_page_commands.py::test_predict_commands_answer"
NO_WORKSPACE = "not run: it needs the Databricks CLI and a workspace"
SETTINGS = "--set training.epochs=5 --set features.numeric.0.scaling=standard"
CHAMPION = "jobs/predict.py --model models:/penguins@champion"
PENGUIN = '{"Island": "Biscoe", "CulmenLength": 50.4, "CulmenDepth": 15.3, "FlipperLength": 200, "BodyMass": 5000}'

COMMANDS = {
    # cheap, or only looked at: make shows what it would do
    "make help": HERE,
    "make setup": DRY,
    "make test": DRY,
    "make test ARGS=tests/unit": DRY,
    "make test-more": DRY,
    "make test-faults": DRY,
    "make test-databricks": DRY,
    "make lint": DRY,
    "make lint test": DRY,
    "make format": DRY,
    "make ui": DRY,
    "make lock": DRY,
    "make clean": DRY,
    "make audit": DRY,
    "make bench": DRY,
    "make bench-scale": DRY,
    'make bench ARGS="--only epochs --rows 200000 --repeats 1"': DRY,
    "make dist EXTRAS=s3": DRY,
    "make dist EXTRAS=azure": DRY,
    "make train CONFIG=conf/mine/pipeline.yaml": DRY,
    "python -m pipeline.config": HERE,
    "python -m pipeline.model.dialect.reference": HERE,
    "source conf/spark/env.sh": HERE,
    "cp -r conf/penguins conf/mine": "tests/unit/test_pages.py::test_a_copy_of_the_penguins_is_a_use_case",
    "python tests/surroundings.py": "tests/horovod/test_surroundings.py::test_each_trains_or_is_refused",
    "make hooks": "tests/unit/test_pages.py::test_hooks_run_lint_and_leave_another_hook_alone",
    # the main job; DRY shows that `make train` is this spark-submit
    "make train": TRAIN + "test_the_summary_is_the_last_line_and_the_only_one_on_stdout",
    "spark-submit jobs/train.py --config conf/penguins/pipeline.yaml": TRAIN
    + "test_the_summary_is_the_last_line_and_the_only_one_on_stdout",
    "spark-submit jobs/train.py --config conf/penguins/pipeline.yaml --set training.epochs=5": GATE,
    f"spark-submit jobs/train.py --config conf/penguins/pipeline.yaml {SETTINGS}": GATE,
    "spark-submit jobs/train.py --config conf/penguins/pipeline.yaml --no-gate": GATE,
    "spark-submit jobs/gate.py --config conf/penguins/pipeline.yaml": GATE,
    'spark-submit jobs/gate.py --config conf/penguins/pipeline.yaml --promote 2 --reason "has test rows"': OVERRULE,
    "spark-submit jobs/gate.py --config conf/penguins/pipeline.yaml --rollback": OVERRULE,
    "make picture": "tests/horovod/test_page_commands.py::test_the_picture_is_drawn_or_the_missing_browser_named",
    # a packaged model
    f"spark-submit {CHAMPION} --input new.csv --output out/ --format csv": PREDICT,
    f"python {CHAMPION} --row '{PENGUIN}'": PREDICT,
    "make serve": SERVE + "test_both_formats_of_rows_get_the_answers_of_batch_scoring",
    "curl http://127.0.0.1:5000/invocations -H 'Content-Type: application/json' "
    f"-d '{{\"dataframe_records\": [{PENGUIN}]}}'": SERVE + "test_the_command_of_the_page_is_answered",
    # clusters and servers
    "export MASTER=spark://host:7077 SHARED=/mnt/shared": CLUSTER,
    "make dist": CLUSTER,
    "cp conf/penguins/penguins.csv $SHARED/": CLUSTER,
    "spark-submit --master $MASTER --executor-cores 2 --total-executor-cores 4 "
    "--archives dist/environment.tar.gz#environment "
    "--conf spark.pyspark.python=./environment/bin/python --conf spark.pyspark.driver.python=$PWD/.venv/bin/python "
    "jobs/train.py --config conf/penguins/pipeline.yaml "
    "--set source.path=$SHARED/penguins.csv --set run.work_dir=$SHARED/work": CLUSTER,
    "MLFLOW_TRACKING_USERNAME=me MLFLOW_TRACKING_PASSWORD=secret spark-submit jobs/train.py "
    "--config conf/penguins/pipeline.yaml --set tracking.uri=https://mlflow.example.org": (
        "tests/cluster/test_standalone.py::test_rank_0_on_an_executor_logs_with_a_password_that_nobody_else_sees"
    ),
    "cd conf/databricks && databricks bundle deploy -t dev": NO_WORKSPACE,
    "databricks bundle run -t dev train": NO_WORKSPACE,
    ".venv/bin/python -m uv pip install adlfs": "not run: it changes the environment that the tests run in",
}


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands(page: Path) -> list[str]:
    """Return a page's commands, each on one line: of its blocks of bash, and of the code spans in its text."""
    spans = [s for s in code_spans(page) if s.split()[0] in (*PROGRAMS, ".venv/bin/python") and " " in s]
    listed = [span for span in spans if "…" not in span]
    for block in re.findall(r"^( *)```bash\n(.*?)^\1```$", text_of(page), flags=re.MULTILINE | re.DOTALL):
        begun = ""
        for line in textwrap.dedent(block[1]).replace("\\\n", " ").splitlines():
            code = re.sub(r"(^|\s)#\s.*$", "", line)
            begun = f"{begun} {code}".strip()
            if begun.count("'") % 2 == 0 and begun:
                listed.append(" ".join(begun.split()))
                begun = ""
        assert not begun, f"{page}: a quote is not closed: {begun}"
    return listed


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def parser_of(job: Path) -> ArgumentParser:
    spec = importlib.util.spec_from_file_location(f"page_{job.stem}", job)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parser: ArgumentParser = module.parser()
    return parser


MAKE_SETS = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS", "CONFIG")
"""Variables of a `make test` that runs these tests: a user's shell has none of them."""


def run(command: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    # as from a shell: without the variables that `make test ARGS=…` has set
    inherited = {name: value for name, value in os.environ.items() if name not in MAKE_SETS}
    environ = {**inherited, **environment}
    words = ["bash", "-ec", command]
    return subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True, timeout=100, check=False)


def test_the_front_page_is_short() -> None:
    assert len(text_of(Path("README.md")).splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text_of(page))
    for link in (one or other for one, other in links):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(target.relative_to(ROOT)), f"{page}: {link}"


def test_each_page_can_be_reached_from_the_front_page() -> None:
    reached, waiting = set(), [Path("README.md")]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", text_of(page))
        waiting += [(ROOT / page.parent / link).resolve().relative_to(ROOT) for link in links]
    assert reached == set(PAGES)


def sentences(page: Path) -> list[str]:
    """Return the sentences of a page's paragraphs, list items and cells of tables; a code span counts as one word."""
    text = re.sub(r"^#.*$|^<.*$", "", prose(page), flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", "X", re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text))
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) |\|)| \| ", text)
    return [s for part in parts for s in re.split(r"(?<=[.:?!;])\s+", part.strip(" -*|\n"))]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_sentences_are_short(page: Path) -> None:
    assert [sentence for sentence in sentences(page) if len(sentence.split()) > 25] == []


def test_the_table_of_settings_is_the_generated_one() -> None:
    assert table() in text_of(Path("conf/README.md"))
    assert all(not row.endswith("| None |") for row in reference())


def test_the_table_of_presets_is_the_generated_one() -> None:
    assert "\n".join(presets()) in text_of(Path("conf/README.md"))


def test_the_table_of_what_features_sql_may_use_is_the_generated_one() -> None:
    assert dialect.table() in text_of(Path("conf/README.md"))


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGES.md"], ids=str)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    keys = {row.split("`")[1].replace("[]", "") for row in reference()}
    known = keys | {key[:dot] for key in keys for dot in range(len(key)) if key[dot] == "."}
    sections = {key.split(".")[0] for key in known}
    for span in code_spans(page):
        name = re.match(r"[a-z_]+(\.[a-z_]+)+(?=$|[:= ])", span)
        if name and name[0].split(".")[0] in sections and not name[0].endswith((".py", ".sql", ".yaml", ".json")):
            assert name[0] in known, f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    for span in code_spans(page):
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", span) or page.name == "CHANGES.md":
            continue
        begins = [base for base in (ROOT, ROOT / page.parent) if (base / span.split("/")[0]).is_dir()]
        if begins and not span.startswith((".work", ".venv", "conf/mine", "data/manifest.json")):
            assert any((base / span).exists() for base in begins), f"{page}: {span}"


def test_the_table_of_files_is_the_tree() -> None:
    rows = re.findall(r"^\| `([\w/.]+\.(?:py|j2))` \|", text_of(Path("pipeline/README.md")), flags=re.MULTILINE)
    files = (f for ending in ("*.py", "*.j2") for f in (ROOT / "pipeline").rglob(ending))
    tree = {str(f.relative_to(ROOT / "pipeline")) for f in files if f.name not in ("__init__.py", "__main__.py")}
    assert sorted(rows) == sorted(tree)


def test_every_command_is_run_by_a_test_or_has_a_reason() -> None:
    in_pages = {command for page in PAGES for command in commands(page)}
    assert in_pages - set(COMMANDS) == set()
    assert set(COMMANDS) - in_pages - {"make help"} == set()
    for command, where in COMMANDS.items():
        if not where.startswith("not run: "):
            file, _, name = where.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{command}: {where}"


def test_the_front_page_names_every_target_of_make() -> None:
    assert targets() - {"help"} == set(re.findall(r"`make ([a-z-]+)", text_of(Path("README.md"))))


@pytest.mark.parametrize("command", [c for c, where in COMMANDS.items() if where == HERE])
def test_a_cheap_command_runs(command: str) -> None:
    ran = run(command)
    assert ran.returncode == 0, ran.stderr
    if command.startswith("source"):
        shown = run(
            f'{command} && command -v spark-submit && test -x "$JAVA_HOME/bin/java" && env',
            SPARK_CONF_DIR="",
            PYSPARK_PYTHON="",
            JAVA_HOME="",
        ).stdout
        assert shown.splitlines()[0].endswith("/.venv/bin/spark-submit")
        assert f"SPARK_CONF_DIR={ROOT}/conf/spark" in shown.splitlines()
        assert f"PYSPARK_PYTHON={ROOT}/.venv/bin/python" in shown.splitlines()


@pytest.mark.parametrize("command", [c for c, where in COMMANDS.items() if where == DRY])
def test_an_expensive_target_of_make_exists(command: str) -> None:
    ran = run(command.replace("make", "make -n -o .venv/.ready -o .venv-databricks/.ready", 1))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_make_train_is_the_job_of_the_page() -> None:
    shown = run("make -n -o .venv/.ready train").stdout
    assert shown.split() == ["spark-submit", "jobs/train.py", "--config", "conf/penguins/pipeline.yaml"]


@pytest.mark.parametrize("job", sorted((ROOT / "jobs").glob("*.py")), ids=lambda job: job.name)
def test_each_job_explains_itself_without_spark(job: Path) -> None:
    ran = run(f"{sys.executable} {job} --help")
    assert ran.returncode == 0
    assert "usage: " in ran.stdout
    assert job.name in text_of(Path("README.md"))


@pytest.mark.parametrize("command", [c for c in COMMANDS if "jobs/" in c])
def test_a_job_takes_the_parameters_of_the_page(command: str) -> None:
    words = shlex.split(command)
    at = next(i for i, word in enumerate(words) if word.startswith("jobs/"))
    options = parser_of(ROOT / words[at]).parse_args(words[at + 1 :])
    if hasattr(options, "config"):
        config = load_config([str(ROOT / file) for file in options.config], options.set)
        assert config.folder == ROOT / "conf" / config.folder.name
    else:
        assert options.model.startswith("models:/")


def test_a_copy_of_the_penguins_is_a_use_case(tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    copy = tmp_path / "mine"
    ran = run(f"cp -r conf/penguins {copy}", tmp_path)
    assert ran.returncode == 0
    assert load_config(copy / PENGUINS.name).source_paths == [str(copy / "penguins.csv")]


def test_hooks_run_lint_and_leave_another_hook_alone(tmp_path: Path) -> None:
    hook = tmp_path / ".git" / "hooks" / "pre-commit"
    run("git init -q", tmp_path)
    make = f"make -f {ROOT / 'Makefile'} hooks"
    for _ in range(2):
        ran = run(make, tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert os.access(hook, os.X_OK)
        assert hook.read_text().splitlines()[-1].endswith("make lint")
    hook.write_text("#!/bin/sh\nexit 0\n")
    ran = run(make, tmp_path)
    assert ran.returncode != 0
    assert "pre-commit is there already; add the line" in ran.stderr
    assert hook.read_text() == "#!/bin/sh\nexit 0\n"


def test_the_dockerfile_names_files_and_targets_that_exist() -> None:
    dockerfile = (ROOT / "conf" / "docker" / "Dockerfile").read_text()
    assert "conf/docker/Dockerfile" in dockerfile
    for line in re.findall(r"^COPY (.*)$", dockerfile, flags=re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    named = set(re.findall(r"make[\", ]+([a-z-]+)", dockerfile))
    assert named == {"setup", "train"}
    assert named <= targets()
