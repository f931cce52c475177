"""How good a model is: metrics, streams, tuning, robustness, plots, the model card."""
