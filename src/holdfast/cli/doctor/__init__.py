"""`holdfast doctor`: looks at one headquarters, node or device and says what to do next."""
