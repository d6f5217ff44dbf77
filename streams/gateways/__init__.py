"""Adapters that turn what gateways know into events."""
