"""Values that every part of the simulator speaks of: kinds, refusals, times, quantities, selectors."""
