"""HTTP filters: plain functions that look at a head and decide; `exchange` acts."""
