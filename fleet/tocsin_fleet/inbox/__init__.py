"""The receiving side: events of all devices into a database, once each, and on to people."""
