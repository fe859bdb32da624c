"""`python -m mien`, as `torchrun -m mien train ...` needs it."""

from mien.cli.main import main

main()
