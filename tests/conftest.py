"""Puts this folder on the path, for the checks that several folders of tests share."""
