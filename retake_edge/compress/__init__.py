"""The method: keyframes by DPSelect, and which KV cells of a chunk stay."""
