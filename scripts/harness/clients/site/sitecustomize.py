"""torchvision's wheel has operators for CUDA, which it describes at import; none is used here."""

import sys
import types

sys.modules.setdefault(
    "torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations")
)
