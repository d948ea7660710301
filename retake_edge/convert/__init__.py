"""Checkpoints that llama.cpp's converter does not know, written as GGUF pairs.

    python -m retake_edge.convert CHECKPOINT OUT

LLaVA-OneVision in the layout of transformers, and LLaVA-Video (or LLaVA-OneVision) in that of its
authors. Quantizing what comes out is llama.cpp's own.
"""
