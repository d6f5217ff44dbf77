"""The history: tables and their rows, numbered migrations (`NNNN_*.sql`), named queries (`queries/*.sql`)."""
