"""Heads that have a file of their own; those of DF-Seg and SwiftNet stand with their networks."""
