"""Judgement without I/O: no Kafka, no Faust, no ClickHouse in here."""
