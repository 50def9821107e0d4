"""Horovod's internals are replaced for one run and restored after it; another Horovod is refused by name."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from horovod.runner import gloo_run, launch
from horovod.runner.common.service.task_service import BasicTaskClient
from horovod.runner.common.util import codec, network, secret
from horovod.runner.elastic import worker
from horovod.spark import runner
from horovod.spark.driver import rsh

from pipeline.launch import horovod_patches as patches
from pipeline.launch.horovod_version import check_signatures, check_version
from pipeline.runtime.errors import UserError


def on_driver() -> dict[str, Any]:
    return {
        "signals": gloo_run.register_shutdown_event,
        "tracebacks": rsh.traceback,
        "gloo, in the launcher": launch.gloo_built,
        "gloo, in the runner": runner.gloo_built,
        "exit codes": BasicTaskClient.wait_for_command_exit_code.__defaults__,
        "Spark tasks": runner._task_fn,
        "output": network.shutil,
        "connections": network.socket,
    }


def on_elastic_driver() -> dict[str, Any]:
    return {
        "tasks": runner._make_spark_thread,
        "ranks": runner.gloo_run_elastic,
        "addresses": gloo_run.create_rendezvous_handler,
    }


def on_elastic_rank() -> dict[str, Any]:
    return {"key": worker.secret, "addresses": worker.put_data_into_kvstore}


def in_spark_task() -> dict[str, Any]:
    return {"shortest command": runner.MINIMUM_COMMAND_LIFETIME_S}


def elastic_driver_patches() -> AbstractContextManager[None]:
    key = secret.make_secret_key()
    return patches.applied(
        patches.start_spark_tasks_in(None),
        patches.start_ranks_with("python"),
        patches.accept_signed_addresses_only(key),
    )


def elastic_rank_patches() -> AbstractContextManager[None]:
    return patches.applied(patches.send_signed_addresses())


@pytest.mark.parametrize("error", [None, RuntimeError("the run fails"), SystemExit(1)])
@pytest.mark.parametrize(
    ("read", "patched"),
    [
        (on_driver, patches.patched_driver),
        (on_elastic_driver, elastic_driver_patches),
        (on_elastic_rank, elastic_rank_patches),
    ],
)
def test_patches_are_undone_after_a_run_also_after_a_failing_one(
    read: Callable[[], dict[str, Any]],
    patched: Callable[[], AbstractContextManager[None]],
    error: BaseException | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(secret.HOROVOD_SECRET_KEY, codec.dumps_base64(secret.make_secret_key()))
    before = read()
    with pytest.raises(type(error)) if error else nullcontext(), patched():
        during = read()
        if error:
            raise error
    assert [name for name in before if during[name] is before[name]] == []
    after = read()
    assert [name for name in before if after[name] is not before[name]] == []


def test_a_patch_that_cannot_be_applied_leaves_none_behind() -> None:
    before = gloo_run.register_shutdown_event
    absent = [patches.Replacement(gloo_run, "no_such_function", None)]
    with pytest.raises(AttributeError), patches.applied(patches.leave_signals_to_the_job(), absent):
        pass
    assert gloo_run.register_shutdown_event is before


def test_a_spark_task_restores_what_it_has_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    during = {}

    def record(*task: int) -> tuple[int, ...]:
        during.update(in_spark_task())
        return task

    before = in_spark_task()
    monkeypatch.setattr(runner, "_task_fn", record)
    assert patches.run_spark_task(1, 2) == (1, 2)
    assert during == {"shortest command": 0.5}
    assert in_spark_task() == before == {"shortest command": 3}


def test_the_installed_horovod_is_the_one_that_the_patches_are_written_for() -> None:
    check_signatures()


def install(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the metadata of a Horovod of this version before the installed metadata."""
    metadata = folder / f"horovod-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: horovod\nVersion: {version}\n")
    monkeypatch.syspath_prepend(folder)


def test_a_build_of_the_same_version_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("0.28.1+db1", tmp_path, monkeypatch)
    check_version()


def test_another_version_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("0.29.0", tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"^horovod: version 0\.29\.0 is installed, .*install horovod==0\.28\.1$"):
        check_signatures()


def test_another_signature_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo_run, "register_shutdown_event", lambda timeout: threading.Event())
    problem = (
        r"gloo_run\.register_shutdown_event is \(timeout\) in the installed package, where version 0\.28\.1 has \(\)"
    )
    with pytest.raises(UserError, match=problem), patches.patched_driver():
        pass


def test_a_function_that_is_gone_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(runner, "_make_spark_thread")
    with pytest.raises(
        UserError, match=r"runner\._make_spark_thread is missing in the installed package, where version"
    ):
        check_signatures()


def test_ranks_and_spark_tasks_load_the_patches_without_pyspark_and_torch() -> None:
    code = "import sys, pipeline.launch.horovod_patches; print(sorted({'pyspark', 'torch'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"
