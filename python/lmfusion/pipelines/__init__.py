"""Programs and functions that stand in for those of public pipelines, with the same contract."""
