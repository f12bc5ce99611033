"""`python -m compiler_rl` is the command `compiler-rl`."""

from compiler_rl.cli import main

main()
