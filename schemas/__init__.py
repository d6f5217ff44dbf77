"""What crosses a wire or is stored: records, their codec, topics, and the ClickHouse schema."""
