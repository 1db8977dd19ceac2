"""The controllers and the scheduler, which reconcile objects with their specs."""
