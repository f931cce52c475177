"""How the network learns: recipes, augmentation, batches, the training loop."""
