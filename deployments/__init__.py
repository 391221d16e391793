"""Run the flows as deployments: Prefect server, schedules, automations and worker."""
