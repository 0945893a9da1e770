"""``textseg data``: the public data sets, and a folder of one's own made ready for training."""

import typer

from textseg.cli.data import add, check, fingerprint, listing, plan, prepare, tumors

app = typer.Typer(help="Data sets: which there are, what they label, and making one ready.")
app.command("list")(listing.list_)
app.command("show")(listing.show)
app.command("add")(add.add)
app.command("check")(check.check)
app.command("fingerprint")(fingerprint.fingerprint)
app.command("plan")(plan.plan)
app.command("prepare")(prepare.prepare)
app.command("tumors")(tumors.tumors)
