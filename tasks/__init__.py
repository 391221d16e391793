"""The stages of the flows, a module each: plain functions, with a thin Prefect task where one is needed."""
