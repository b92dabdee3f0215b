"""One behaviour suite for every host; no test here names a framework."""
