"""Training: synthesis of images, sampling, losses, metrics and the Lightning tasks."""
