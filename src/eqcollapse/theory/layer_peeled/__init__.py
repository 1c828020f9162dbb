"""Layer-peeled models (Fang et al. 2021; Sun & Shi 2024): descents and exact minima."""
