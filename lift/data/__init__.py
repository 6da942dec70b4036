"""Data sets: every adapter makes a clip table."""
