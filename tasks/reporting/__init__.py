"""What people are shown of a run: reports, history, summaries, pictures."""
