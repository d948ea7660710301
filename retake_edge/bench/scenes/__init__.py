"""Rendered videos with known answers: drawing them, and questions about them."""
