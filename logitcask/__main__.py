"""`python -m logitcask` is the command `logitcask`."""

from logitcask.schemas.cli import console

console()
