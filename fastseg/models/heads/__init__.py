"""Heads that at least two networks share."""
