"""Every figure: a module for what it shows, and `job`, which draws the one that is named."""
