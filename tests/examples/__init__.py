"""The examples, the README and the documentation do what they say."""
