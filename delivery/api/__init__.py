"""The part of the REST API that speaks to the pipeline."""
