"""From a record to acknowledged bytes: wire (topics, payloads), outbox (disk), drain and publisher (MQTT)."""
