"""The one process that serves the books: questions in, what is durable out."""
