"""``textseg models``: which there are, what each can segment, and installing others."""

import typer

from textseg.cli.models import download, import_, listing, remove, verify

app = typer.Typer(
    help="Models: which there are, what they can segment, and installing published ones.",
    rich_markup_mode=None,
)
app.command("list")(listing.list_)
app.command("show")(listing.show)
app.command("download")(download.download)
app.command("import")(import_.import_)
app.command("verify")(verify.verify)
app.command("remove")(remove.remove)
