"""Services over HTTP. Nothing heavy is imported before it is used."""
