"""Make torchvision importable beside a torch that was built without CUDA.

The wheel on the package index carries operators linked against CUDA. Their library does not load
here, and torchvision then fails where it describes them to torch; none of them is used: the video
processors call resizing functions written in Python. Import this before transformers.
"""

import sys
import types

sys.modules.setdefault(
    "torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations")
)
