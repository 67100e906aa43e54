"""Create an account on the team's MLflow server, or change what it may do: python accounts.py NAME trainer|reader

A trainer logs runs, registers models and moves aliases. A reader, such as the demo, reads. It cannot change what
others have made, but MLflow lets every account create experiments and models of its own. The password is asked for, or
read from ACCOUNT_PASSWORD. The administrator's name and password come from MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD, or, in the server's container, from its environment.
"""

import getpass
import os
import sys
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

if TYPE_CHECKING:
    from mlflow.server.auth.client import AuthServiceClient

TRAINER, READER = "trainer", "reader"
WORKSPACE = "default"
EDITED = ("experiment", "registered_model")  # what a trainer may change; everyone may read everything
SERVER = "http://localhost:5000"


def main(arguments: list[str]) -> None:
    if len(arguments) != 2 or arguments[1] not in (TRAINER, READER):
        sys.exit(f"usage: python accounts.py NAME {TRAINER}|{READER}")
    name, role = arguments
    for ours, server in (("MLFLOW_TRACKING_USERNAME", "USERNAME"), ("MLFLOW_TRACKING_PASSWORD", "PASSWORD")):
        os.environ.setdefault(ours, os.environ.get(f"MLFLOW_AUTH_ADMIN_{server}", ""))
    client = get_app_client("basic-auth", os.environ.get("MLFLOW_TRACKING_URI") or SERVER)
    try:
        print(set_account(client, name, role))
    except MlflowException as error:
        sys.exit(f"{name} is not changed: {error.message}")


def set_account(client: "AuthServiceClient", name: str, role: str) -> str:
    """Create the account if there is none, and give it this role only; returns a sentence."""
    done = f"{name} is a {role} now"
    try:
        client.get_user(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_user(name, os.environ.get("ACCOUNT_PASSWORD") or getpass.getpass(f"Password of {name}: "))
        done = f"{name} is a new {role}"
    trainer = trainer_role(client)
    has_it = any(one.id == trainer for one in client.list_user_roles(name))
    if role == TRAINER and not has_it:
        client.assign_role(name, trainer)
    if role == READER and has_it:
        client.unassign_role(name, trainer)
    return done


def trainer_role(client: "AuthServiceClient") -> int:
    """The ID of the role of trainers, which is created if there is none."""
    found = [one for one in client.list_roles(WORKSPACE) if one.name == TRAINER]
    role = found[0] if found else client.create_role(WORKSPACE, TRAINER, "Logs runs, registers models, moves aliases.")
    granted = {one.resource_type for one in client.list_role_permissions(role.id)}
    for kind in EDITED:
        if kind not in granted:
            client.add_role_permission(role.id, kind, "*", "EDIT")
    return role.id


if __name__ == "__main__":
    main(sys.argv[1:])
