"""Commands that run something: serve, demo, migrate, expire."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guthaben import config
from guthaben.cli.output import SETTINGS, AsJson, Db, command, database, opened, say, say_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for name, work in (("serve", serve), ("demo", demo), ("migrate", migrate), ("expire", expire)):
        app.command(name)(command(work))


def serve(
    host: Annotated[
        str | None, typer.Option(help="Default GUTHABEN_HOST, else 127.0.0.1.", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Default GUTHABEN_PORT, else 8420.", min=1, max=65_535, show_default=False
        ),
    ] = None,
    db: Db = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            help="Where customers reach it; default GUTHABEN_PUBLIC_URL.", show_default=False
        ),
    ] = None,
) -> int | None:
    """Run the server until SIGINT or SIGTERM."""
    import logging

    from guthaben.web import logs, server
    from guthaben.web.app import create_app, open_services

    logs.configure(config.log_level())
    address, number = host or config.host(), port or config.port()
    listener = server.take_address(address, number)
    with listener:
        # The routes of the four modules find their database in the environment.
        config.impose({"GUTHABEN_DATABASE_URL": database(db)})
        services = open_services(public_url=public_url)
        ready = logging.getLogger("guthaben.web")
        told = {"address": f"{address}:{number}"}
        try:
            started = server.run(
                create_app(services), listener, lambda: ready.info("listening", extra=told)
            )
        finally:
            services.stop()
    return None if started else SETTINGS


def demo(
    port: Annotated[int, typer.Option(help="Of the server.", min=1, max=65_535)] = 8000,
    data: Annotated[Path, typer.Option(help="The folder that keeps the demo's data.")] = Path(
        ".guthaben"
    ),
) -> None:
    """Run server, payment sandbox and a demo practice on this machine."""
    from guthaben.demo import run

    run(port, data)


def migrate(
    db: Db = None,
    as_json: AsJson = False,
    distribute: Annotated[
        str | None,
        typer.Option(metavar="citus", help="Then spread the tables by practice over a cluster."),
    ] = None,
) -> None:
    """Create the database, or bring it up to date."""
    with opened(db, create=True) as guthaben:
        store = guthaben.core.store
        location = store.name
        spread = store.distribute(distribute) if distribute is not None else None
    if as_json:
        told = {} if spread is None else {"distributed": True, "changed": spread}
        say_json({"database": location, "ok": True, **told})
        return
    say(f"{location} is up to date.")
    if spread is not None:
        say(
            "Its tables are spread by practice now." if spread else "Its tables were spread before."
        )


def expire(db: Db = None, as_json: AsJson = False) -> None:
    """Expire what is due of every practice.

    The server does so by itself; this is for those who run none.
    """
    with opened(db) as guthaben:
        practices = guthaben.expire()
    if as_json:
        say_json({"practices": practices})
    else:
        say(f"{practices} practice{'' if practices == 1 else 's'} had something due.")
