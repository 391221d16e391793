"""What is done: one verb a module, pure functions with a thin Prefect task where one is needed."""
