"""Every byte that crosses a process border: messages, codecs, text forms, versions."""
