"""The web server: the page, its assets, and who may reach them."""

import asyncio
import socket

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from page import ASSETS
from server import Server, build_app


@pytest.fixture(scope="module")
def client(shipped, detector):
    app = build_app(shipped, detector, faces="all", host="127.0.0.1")
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def test_page_and_assets_are_served(client):
    page = client.get("/")
    assert page.status_code == 200
    for script in ("webcam.js", "photo.js"):
        assert f"/demo-assets/{script}" in page.text
    for asset in ASSETS.glob("*.js"):
        response = client.get(f"/demo-assets/{asset.name}")
        assert response.text == asset.read_text()
        assert "javascript" in response.headers["content-type"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:7860", 200), ("[::1]:7860", 200), ("evil.example", 400), ("127.0.0.1.evil.example", 400)],
)
def test_only_names_of_this_computer_reach_a_local_demo(client, host, status):
    for path in ("/", "/serving", "/config"):
        assert client.get(path, headers={"Host": host}).status_code == status


def test_demo_of_a_network_has_any_name(shipped, detector):
    client = TestClient(build_app(shipped, detector, faces="all", host="0.0.0.0"))
    assert client.get("/serving", headers={"Host": "desk.example"}).status_code == 200


def test_address_is_announced_once_the_server_listens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    connected = []

    def connect() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connected.append(connection.getpeername())
        server.should_exit = True

    config = uvicorn.Config(FastAPI(), host="127.0.0.1", port=port, log_level="warning")
    server = Server(config, connect)
    asyncio.run(server.serve())
    assert connected == [("127.0.0.1", port)]
