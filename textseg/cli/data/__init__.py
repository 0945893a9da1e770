"""``textseg data``: the public data sets, and a folder of one's own made ready for training."""

import typer

from textseg.cli.data import listing

app = typer.Typer(help="Data sets: which there are, what they label, and making one ready.")
app.command("list")(listing.list_)
app.command("show")(listing.show)
