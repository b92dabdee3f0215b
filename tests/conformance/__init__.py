"""One suite of behaviour for all hosts. No test here names a framework."""
