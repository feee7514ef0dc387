"""The data plane: one process per pod that makes every model call obey its policy."""
