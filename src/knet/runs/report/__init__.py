"""Reports: pages that show what an evaluation found, or how a run goes, in one file."""
