"""Controllers of a row under a breaker: thresholds, forecasts, scenarios, and one that cheats."""
