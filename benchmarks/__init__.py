"""Speed and weight, always as ratios to a floor that the same run measures: machines drift."""
