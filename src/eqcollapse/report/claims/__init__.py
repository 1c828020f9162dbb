"""The claims of both papers, the rule that decides on them, and `job`, which judges them."""
