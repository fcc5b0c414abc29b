"""From a model file to a `TrainedModel`, never by blind unpickling."""
