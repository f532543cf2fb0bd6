"""Programs that need an extra each: a page to try models on, and prediction on a cluster."""
