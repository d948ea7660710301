"""Goldens of model families: what a family's own processor and model in transformers make of a
real video, from a toy of the family's architecture with random weights.

    PYTHONPATH=scripts python -m parity make [FAMILY ...] --out DIR     writes goldens
    PYTHONPATH=scripts python -m parity check [FAMILY ...] --out DIR    compares them with new ones

tests/models/test_families.py holds retake-edge against them; that needs neither torch nor
transformers. `make parity` checks them all.
"""

from parity import torchvision_stub as torchvision_stub  # before transformers, wherever that is
