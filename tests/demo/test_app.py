"""The command line of the demo: options, errors, and its end."""

import signal
import socket
from pathlib import Path

import pytest
from tests.support.certificates import write_certificate

import app
from emotion_detection.command_line import run_command
from emotion_detection.errors import UsageError
from emotion_detection.serving import listening


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "gone.onnx"], "gone.onnx"),
        (["--model", __file__], "cannot be loaded as an ONNX model"),
        (["--detector", "gone.onnx"], "gone.onnx"),
        (["--share"], "--share is not supported"),
        (["--host", "192.0.2.1"], "192.0.2.1"),
        (["--host", ""], "--host is empty"),
        (["--host", "a" * 300], "choose another --port or --host"),
        (["--allowed-host", "http://faces.example"], "--allowed-host 'http://faces.example' is not a name"),
        (["--root-path", "faces"], "--root-path 'faces' is not a path"),
        (["--root-path", "/a b"], "is not a path"),
        (["--ssl-keyfile", "key.pem"], "--ssl-keyfile needs --ssl-certfile"),
        (["--ssl-certfile", "gone.pem"], "gone.pem cannot be read"),
        (["--ssl-certfile", __file__], "cannot be used for https"),
    ],
)
def test_wrong_option_is_one_line(capfd, arguments, sentence):
    with pytest.raises(SystemExit) as end:
        run_command(app.demo, ["--port", str(free_port()), *arguments])
    assert end.value.code == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert sentence in line


@pytest.mark.parametrize("arguments", [["--port", "0"], ["--port", "65536"], ["--faces", "some"], ["--gpu"]])
def test_unknown_value_is_a_usage_error(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        run_command(app.demo, arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_port_in_use_is_named(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            run_command(app.demo, ["--port", str(port)])
    assert f"127.0.0.1:{port} cannot be used" in capsys.readouterr().err


def test_all_flags_reach_the_server(monkeypatch):
    served: list[app.DemoOptions] = []
    monkeypatch.setattr(app, "serve", served.append)
    flags = (
        "--model m.onnx --host localhost --port 8000 --faces largest --detector yunet.onnx --share "
        "--allowed-host a.example --allowed-host b.example --root-path /faces --ssl-certfile c.pem --ssl-keyfile k.pem"
    )
    run_command(app.demo, flags.split())
    assert served == [
        app.DemoOptions(
            model="m.onnx",
            host="localhost",
            port=8000,
            allowed_host=("a.example", "b.example"),
            root_path="/faces",
            ssl_certfile=Path("c.pem"),
            ssl_keyfile=Path("k.pem"),
            faces="largest",
            detector="yunet.onnx",
            share=True,
        )
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_quietly(monkeypatch, capsys, number):
    monkeypatch.setattr(app, "serve", lambda _: signal.raise_signal(number))
    run_command(app.demo, [])
    assert capsys.readouterr() == ("\nThe demo has stopped.\n", "")
    assert signal.getsignal(signal.SIGTERM) != signal.default_int_handler


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "http://127.0.0.1:7860"),
        ({"host": "::1"}, "http://[::1]:7860"),
        ({"host": "[::1]"}, "http://[::1]:7860"),
        ({"host": "0.0.0.0", "port": 80}, "http://127.0.0.1:80"),
        ({"host": "::"}, "http://[::1]:7860"),
        ({"host": "desk.example"}, "http://desk.example:7860"),
        ({"ssl_certfile": Path("c.pem"), "root_path": "/faces/"}, "https://127.0.0.1:7860/faces"),
    ],
)
def test_printed_address_can_be_opened(options, url):
    assert listening.listening_of(app.DemoOptions(**options)).url == url


def test_ipv6_address_may_have_brackets():
    for host in ("::1", "[::1]"):
        listening.check_port(host, free_port())


def test_certificate_is_checked_before_the_start(tmp_path):
    certificate, key = write_certificate(tmp_path)
    listening.check_certificate(certificate, key)
    listening.check_certificate(None, None)
    other, _ = write_certificate(tmp_path / "other")
    with pytest.raises(UsageError, match="cannot be used for https"):
        listening.check_certificate(other, key)
    with pytest.raises(UsageError, match="the key in it"):
        listening.check_certificate(certificate, None)
