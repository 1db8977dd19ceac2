"""Values that every part of the simulator uses: kinds, errors, times, quantities, selectors."""
