"""A small own certificate authority: certificates for devices and their broker."""
