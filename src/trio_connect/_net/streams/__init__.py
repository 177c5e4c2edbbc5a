"""The halves of a byte stream: its buffer, receiving, sending, closing."""
