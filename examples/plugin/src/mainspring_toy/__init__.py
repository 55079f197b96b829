"""A task and a family of models for Mainspring. Importing this imports neither."""
