"""Tests of the command line: the real program, a real service, real containers."""
