"""HTTP serving: MLflow's scoring server for one model."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from pipeline.runtime.console import log
from pipeline.runtime.errors import UserError
from pipeline.tracking.registry import fetch_model


def serve(model: str, host: str, port: int, tracking_uri: str) -> dict[str, Any]:
    """Become MLflow's scoring server for this model, in this environment; returns only by raising.

    Raises:
        UserError: there is no such model, or the port is taken.
    """
    fetch_model(model, tracking_uri)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"--port {port}: cannot listen on {host}: {getattr(error, 'strerror', error)}") from None
    log.info("serving %s: POST rows to http://%s:%d/invocations", model, host, port)
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    arguments = ["--model-uri", model, "--host", host, "--port", str(port), "--env-manager", "local"]
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "mlflow", "models", "serve", *arguments])
