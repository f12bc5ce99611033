"""The agent: networks that guide search, and how they are trained."""
