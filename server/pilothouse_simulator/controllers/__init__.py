"""The controllers and the scheduler, which bring objects to the state of their specs."""
