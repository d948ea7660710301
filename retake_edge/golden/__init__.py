"""The specification: PivotKV and its model in numpy, and checks of recorded data against it all."""
