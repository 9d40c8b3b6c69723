"""Parts that networks are made of. Import from the modules: `fastseg.layers.conv`, `.norm`, `.resize`, ..."""
