"""From metrics to tables, figures, claims and the page. Reads CSV; `metrics` alone needs torch."""
