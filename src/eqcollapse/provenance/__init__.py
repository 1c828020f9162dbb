"""What made a file: a record beside every output."""
