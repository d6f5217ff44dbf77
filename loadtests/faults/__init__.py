"""What goes wrong in production, done on purpose under load, and judged by ids."""
