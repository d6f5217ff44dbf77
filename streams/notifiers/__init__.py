"""Channels that tell operators."""
