"""Programs that record runs beside the run's own files (`run.trackers`): TensorBoard, MLflow, Weights & Biases."""
