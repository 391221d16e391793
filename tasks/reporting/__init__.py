"""Report runs to users: reports, history, summaries, contact sheets, charts."""
