"""The controllers and the scheduler, which bring objects to what their specs ask for."""
