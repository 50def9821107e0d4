"""HTTP serving: MLflow's scoring server for one model."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from pipeline.runtime.console import log
from pipeline.runtime.errors import UserError, reason
from pipeline.tracking import store
from pipeline.tracking.registry import fetched_model


def serve(model: str, host: str, port: int, tracking_uri: str | None = None) -> dict[str, Any]:
    """Become MLflow's scoring server for this model, in this environment; return only by raising.

    Without ``tracking_uri`` the model comes from :func:`pipeline.tracking.store.default_uri`.

    Raises:
        UserError: the store has no such model, or the port is taken.
    """
    uri = tracking_uri or store.default_uri()
    with fetched_model(model, uri):
        _check_port(host, port)
    log.info("serving %s: POST rows to http://%s:%d/invocations", model, host, port)
    os.environ["MLFLOW_TRACKING_URI"] = uri  # command lines are for all to see, and a URI may hold a password
    arguments = ["--model-uri", model, "--host", host, "--port", str(port), "--env-manager", "local"]
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "mlflow", "models", "serve", *arguments])


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: cannot listen on {host}: {reason(error)}; name another port") from None
