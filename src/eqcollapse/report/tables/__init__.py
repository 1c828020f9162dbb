"""Every table: a module for what it holds, and `job`, which writes the one that is named."""
