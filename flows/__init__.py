"""The flows, their command line and their runtime."""
