"""Parts that at least two networks share. Import from the modules: `fastseg.layers.conv`, `.norm`, `.resize`, ..."""
