"""The command line of the demo: options, errors, and its end."""

import socket

import pytest

import app
from emotion_detection.command_line import run_command


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
    ],
    ids=["no model", "no ONNX", "no detector", "share", "foreign host"],
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
    flags = "--model m.onnx --host localhost --port 8000 --faces largest --detector yunet.onnx --share"
    run_command(app.demo, flags.split())
    assert served == [
        app.DemoOptions(model="m.onnx", host="localhost", port=8000, faces="largest", detector="yunet.onnx", share=True)
    ]


def test_ctrl_c_ends_quietly(monkeypatch, capsys):
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "serve", interrupted)
    run_command(app.demo, [])
    assert capsys.readouterr() == ("\nThe demo has stopped.\n", "")


def test_address_of_an_ipv6_host_has_brackets():
    assert app.page_url("::1", 7860) == "http://[::1]:7860"
    assert app.page_url("127.0.0.1", 7860) == "http://127.0.0.1:7860"
