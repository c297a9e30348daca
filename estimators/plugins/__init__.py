"""Finding estimators and problems by name: the catalogue, plugins, specifications."""
