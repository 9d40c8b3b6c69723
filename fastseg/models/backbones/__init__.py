"""Backbones that at least two networks share."""
