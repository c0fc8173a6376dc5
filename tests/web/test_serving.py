"""The server as a process, and many clients at once."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from sotglp.cli.serve import serve
from sotglp.web.serving import bound
from support.command import sotglp
from support.samples import COLOURS
from support.web_server import OLD, files, png, server_process

N_CLIENTS = 12


def test_many_clients_until_a_signal(model: Path) -> None:
    images = [png(COLOURS[OLD[index % 3]], seed=index) for index in range(N_CLIENTS)]

    async def all_at_once(address: str) -> list[list[dict[str, object]]]:
        async def one(image: bytes) -> list[dict[str, object]]:
            async with httpx.AsyncClient(base_url=address, timeout=60) as client:
                answers = []
                for _ in range(2):
                    answer = await client.post("/predict", files=files(image))
                    assert answer.status_code == 200, answer.text
                    answers += answer.json()["predictions"]
                explained = await client.post("/explain", files=files(image, field="image"))
                assert explained.json()["classes"][0]["label"] == answers[0]["label"]
                return answers

        return await asyncio.gather(*map(one, images))

    with server_process(model, "--max-images", 2, "--max-image-mb", 0.5) as (process, address):
        assert httpx.get(f"{address}/health").json()["model"] == model.name
        limits = httpx.get(f"{address}/model").json()["limits"]
        assert (limits["max_images"], limits["max_image_bytes"]) == (2, 500_000)
        alone = [httpx.post(f"{address}/predict", files=files(image)).json()["predictions"][0] for image in images]
        found = asyncio.run(all_at_once(address))
        with httpx.Client(base_url=address) as kept_alive:
            assert "server" not in kept_alive.post("/predict", files=files(images[0])).headers
            # The client sees the answer although it is still sending.
            refused = kept_alive.post("/predict", files=files(b"x" * 20_000_000))
            assert (refused.status_code, "larger than the allowed 0.5 MB" in refused.json()["error"]) == (413, True)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert "0.png" not in out
    for answers, expected in zip(found, alone, strict=True):
        for answer in answers:
            assert (answer["label"], answer["is_unknown"]) == (expected["label"], expected["is_unknown"])
            assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
            assert answer["ood_score"] == pytest.approx(expected["ood_score"], abs=1e-5)


def test_what_keeps_it_from_starting(model: Path, tmp_path: Path) -> None:
    command = typer.Typer()
    command.command()(serve)

    def error(*arguments: object) -> str:
        return str(CliRunner().invoke(command, list(map(str, arguments))).exception)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"can't bind to port {port} of 127.0.0.1 (Address already in use)" in error(model, "--port", port)
    assert "there is no model file" in error(tmp_path / "none.safetensors", "--port", 0)
    assert "of no.such.host.invalid (" in error(model, "--host", "no.such.host.invalid", "--port", 0)
    assert "max_image_mb = 0" in error(model, "--max-image-mb", 0)
    assert "max_seconds = -1" in error(model, "--max-seconds", -1)
    assert "--out is for a page that trains" in error(model, "--out", tmp_path / "n.safetensors")
    assert "--backbone is for a page that trains" in error(model, "--backbone", "photo")
    assert "--pretrained is for a model file" in error("--pretrained", "openai")
    assert "is a folder" in error("--out", tmp_path)


def test_a_public_address_warns_and_an_interrupt_ends_the_server(model: Path) -> None:
    with server_process(model, "--host", "0.0.0.0") as (process, address):
        port = address.rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert err.startswith("sotglp: warning: other computers can use the model at 0.0.0.0 without a password")
    assert len(err.splitlines()) == 1


def test_help_has_an_example_and_needs_neither_torch_nor_fastapi() -> None:
    assert "Example: sotglp serve birds.safetensors" in sotglp("serve", "--help").stdout
    look = "import sys, sotglp.cli.serve; sys.exit(bool({'torch', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", look]).returncode == 0


def test_without_the_extra_it_says_what_to_install(model: Path) -> None:
    run = (
        "import sys; sys.modules['fastapi'] = None; from sotglp.cli import main; "
        f"sys.argv = ['sotglp', 'serve', {str(model)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "sotglp: error: serving needs fastapi: pip install 'sotglp[web]'\n"


def test_small_answers_are_sent_at_once() -> None:
    """Otherwise the body waits 40 ms for the acknowledgement of the head."""

    async def no_delay() -> int:
        asked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            asked.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with bound("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(answer, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await asked

    assert asyncio.run(no_delay())
