"""Start MLflow's web page with the project's runs and models: `make ui`."""

import os
import sys


def ui(*, port: int = 5000) -> None:
    """Start MLflow's web page on this computer and print the address of the table of runs.

    If the store is a server, only the address is printed.

    Parameters
    ----------
    port:
        The port of the page.
    """
    from emotion_detection.experiments import overview, store_location  # MLflow takes seconds to import

    environment = dict(os.environ)  # without the limits of this process: a server needs its pool of connections
    server = overview.server_address()
    page = overview.page_of_runs(server or f"http://127.0.0.1:{port}")
    print(f"Open {page}", flush=True)
    if server is None:
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # a third of the memory
        command = ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
        arguments = [sys.executable, *command, "--backend-store-uri", store_location.store_uri()]
        os.execve(sys.executable, arguments, environment)
