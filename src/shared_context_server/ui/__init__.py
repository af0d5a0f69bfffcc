"""The dashboard at /ui: pages for the people who run agents."""
