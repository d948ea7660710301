"""python -m retake_edge: the command line."""

from retake_edge.cli import main

main()
