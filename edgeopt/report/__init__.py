"""The report rendered: terminal, Markdown, HTML."""
