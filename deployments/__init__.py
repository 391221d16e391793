"""What it takes to run the flows for real."""
