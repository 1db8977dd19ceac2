"""Between the values of the translator of manifests and the values of each noun."""
