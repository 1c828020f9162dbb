"""From metrics to tables and figures. Reads CSV, never torch."""
