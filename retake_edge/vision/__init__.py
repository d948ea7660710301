"""Frames to features: the vision tower and projector of a model."""
