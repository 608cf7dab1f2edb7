"""`lmfusion serve`: a scorer behind HTTP."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.scorer_options import MODEL_HELP, ChosenScorer, scores

_LIMITS = "Limits"


@scores(without=())
def serve(scorer: ChosenScorer,
          given: Annotated[str | None, typer.Argument(
              metavar="[MODEL]", help=f"{MODEL_HELP}; the same as --model")] = None,
          host: Annotated[str, typer.Option("--host", help="where to listen")] = "127.0.0.1",
          port: Annotated[int, typer.Option("--port", min=0, max=65535,
                                            help="0: any that is free")] = 8000,
          token_file: Annotated[Path | None, typer.Option(
              "--token-file", metavar="FILE",
              help='lines "NAME TOKEN": who may call; names share no cache')] = None,
          token: Annotated[str | None, typer.Option(
              "--token", envvar="LMFUSION_TOKEN", help="one token for everybody")] = None,
          name: Annotated[str, typer.Option("--name", help="of the model, in /v1/models")]
          = "lmfusion",
          certificate: Annotated[Path | None, typer.Option(
              "--certificate", metavar="FILE", help="of TLS, PEM")] = None,
          key: Annotated[Path | None, typer.Option(
              "--key", metavar="FILE", help="of the certificate")] = None,
          concurrency: Annotated[int, typer.Option(
              "--concurrency", help="calls in the scorer at a time", rich_help_panel=_LIMITS)] = 64,
          queue: Annotated[int, typer.Option(
              "--queue", help="calls that wait; more get 429", rich_help_panel=_LIMITS)] = 256,
          connections: Annotated[int, typer.Option(
              "--connections", help="open ones; more get 503", rich_help_panel=_LIMITS)] = 1024,
          body_bytes: Annotated[int, typer.Option(
              "--body-bytes", help="of a request; more get 413", rich_help_panel=_LIMITS)]
          = 8 << 20,
          drain_seconds: Annotated[float, typer.Option(
              "--drain-seconds", help="for calls in progress after SIGTERM",
              rich_help_panel=_LIMITS)] = 30.0) -> None:
    """Answer scoring requests over HTTP, until SIGTERM (docs/service.md).

    Paths are the scorer's methods, and OpenAI-style /v1/completions with echo and logprobs.
    lmfusion.Client asks them.
    """
    from lmfusion.service.access import Access, read_tokens
    from lmfusion.service.application import Service
    from lmfusion.service.limits import Limits
    from lmfusion.service.server import Server
    if given is not None and scorer.model is not None:
        raise ValueError("the model is given twice: as an argument and by --model")
    tokens = read_tokens(token_file) if token_file else {}
    if token:
        tokens |= {token: "token"}
    limits = Limits(concurrency=concurrency, queue=queue, connections=connections,
                    body_bytes=body_bytes, drain_seconds=drain_seconds)
    access = Access(tokens)
    opened = dataclasses.replace(scorer, model=given or scorer.model).open()
    server = Server(Service(opened, access=access, limits=limits, name=name), host=host,
                    port=port, certificate=certificate, key=key)
    print(f"lmfusion: {server.url}", file=sys.stderr, flush=True)
    server.run()
