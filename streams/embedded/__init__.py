"""Apache Kafka and the ClickHouse engine without an installation."""
