"""The command `lmmvqa serve`. Heavy imports happen inside."""

from __future__ import annotations

from typing import Annotated

import typer

from lmmvqa.commands.checks import check_port
from lmmvqa.commands.options import Device, Model
from lmmvqa.console import clear_errors, messages

app = typer.Typer()


@app.command()
def serve(
    model: Model = None,
    device: Device = None,
    host: Annotated[
        str, typer.Option(help="Who may reach it: 127.0.0.1 is this machine, 0.0.0.0 all of its network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the service; 0 for any that is free.")] = 8000,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Clients may name a public http(s) URL instead of sending a file.")
    ] = False,
    max_upload: Annotated[int, typer.Option(min=1, help="MB of one file; a larger one gets 413.")] = 500,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a file may take to arrive (408), and then to be scored (504).")
    ] = 120.0,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests under way at once; others get 429.")] = 32,
    memory_limit: Annotated[int, typer.Option(min=64, help="MB that reading one video may take.")] = 2048,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos that are read at once. Default: one for each core.")
    ] = None,
) -> None:
    """Score videos that are sent over HTTP: curl -F file=@clip.mp4 http://127.0.0.1:8000/score

    The page /docs describes it. SIGTERM or Ctrl-C ends it when it has answered what it began.
    """
    check_port(host, port)
    with clear_errors():
        from lmmvqa.serving import ServiceLimits, serve

        serve(
            model,
            device,
            host,
            port,
            limits=ServiceLimits(max_upload, time_limit, max_requests, memory_limit),
            workers=workers,
            allow_urls=allow_urls,
            say=lambda text: messages.print(text, highlight=False, soft_wrap=True),
        )
