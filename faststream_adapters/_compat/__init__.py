"""The private names of FastStream and of other packages that this package uses, one module per client."""
