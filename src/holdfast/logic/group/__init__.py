"""Groups: eras, operations in a hash DAG, reducers that fold them into state."""
